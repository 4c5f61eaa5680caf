"""Raw datasets in miniature, as their archives lay them out, and what must become of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from scipy.io import savemat

from cat_seg.utils.paths import REPO_ROOT

COCO = "coco_2017_{}_stuff_all_sem_seg"
# Folders of the raw labels, images and converted labels of COCO-Stuff, by layout.
COCO_LAYOUTS = {
    "cat_seg": ("coco-stuff/annotations/{0}", "coco-stuff/images/{0}", "coco-stuff/{1}/{0}"),
    "hps_seg": (
        "coco/coco_stuff/annotations/{0}",
        "coco/coco_stuff/images/{0}",
        "coco/coco_stuff/{1}/{0}_stuff",
    ),
    "hps_seg_flat": (
        "coco/coco_stuff/stuffthingmaps_trainval2017/{0}",
        "coco/coco_stuff/images",
        "coco/coco_stuff/{1}/{0}_stuff",
    ),
}
# Root and folder of images of PASCAL Context, by layout.
CONTEXT_LAYOUTS = {
    "cat_seg": ("VOCdevkit/VOC2010", "JPEGImages"),
    "hps_seg": ("pcontext", "images"),
}
CONTEXT_LIST = "VOCdevkit/VOC2010/pascalcontext_val.txt"
VOC = "VOCdevkit/VOC2012"
ADE = "ADEChallengeData2016"
FULL = "ADE20K_2021_17_01"

# Path of each converted file below the datasets root, and what it must hold.
Expected = dict[str, np.ndarray]
RAW_IDS = REPO_ROOT / "datasets/raw_ids"


def save(path: Path, content: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(content).save(path, **options)


def save_image(path: Path, height: int, width: int, **options) -> None:
    rows, columns = np.indices((height, width))
    pixels = np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1)
    save(path, pixels.astype(np.uint8), **options)


def write_coco(root: Path, layout: str = "cat_seg", images: int = 3) -> Expected:
    """Every value there can be, turned differently for each image of both splits."""
    raw, photos, labels = COCO_LAYOUTS[layout]
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    # The ids from 0 on that COCO-Stuff does not use; 182 things and stuff, then nothing.
    unused = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90]
    used = [value for value in range(182) if value not in unused]
    wanted = np.full(256, 255, np.uint8)
    wanted[used] = np.arange(171)
    wanted = wanted.reshape(8, 32)
    expected = {}
    for first, split in enumerate(("train2017", "val2017")):
        for number in range(first * images, (first + 1) * images):
            name = f"{number:012d}"
            save(root / raw.format(split) / f"{name}.png", np.roll(values, number))
            save_image(root / photos.format(split) / f"{name}.jpg", 8, 32)
            label = labels.format(split, "annotations_detectron2")
            expected[f"{label}/{name}.png"] = np.roll(wanted, number)
    return expected


def write_ade150(root: Path) -> Expected:
    """One image of each split, with every value there can be."""
    values = np.arange(152, dtype=np.uint8).reshape(8, 19) % 151
    wanted = np.where(values == 0, 255, values.astype(int) - 1).astype(np.uint8)
    expected = {}
    for split, name in (("validation", "ADE_val_00000001"), ("training", "ADE_train_00000001")):
        save(root / ADE / "annotations" / split / f"{name}.png", values)
        save_image(root / ADE / "images" / split / f"{name}.jpg", 8, 19)
        expected[f"{ADE}/annotations_detectron2/{split}/{name}.png"] = wanted
    return expected


def ade_segments(ids: np.ndarray) -> np.ndarray:
    """Colors of object numbers as in *_seg.png: R also tells parts, B instances."""
    noise = np.random.default_rng(0).integers(0, 10, ids.shape)
    return np.stack([ids // 256 * 10 + noise, ids % 256, noise * 25], -1).astype(np.uint8)


def write_ade_full(root: Path, shapes: tuple[tuple[int, int], ...] = ((20, 30),)) -> Expected:
    """Walls, buildings, the largest number, an object outside the 847, and nothing."""
    ids = np.array([2978, 312, 3156, 3157, 0])
    wanted = np.array([0, 1, 0, 65535, 65535])
    wanted[2] = json.loads(RAW_IDS.joinpath("ade847.json").read_text()).index(3156)
    expected = {}
    for number, (height, width) in enumerate(shapes):
        name = f"ADE_val_{number:08d}"
        folder = root / FULL / "images/ADE/validation" / f"kind_{number}" / "scene"
        which = np.random.default_rng(number).integers(0, len(ids), (height, width))
        save_image(folder / f"{name}.jpg", height, width)
        save(folder / f"{name}_seg.png", ade_segments(ids[which]))
        save(folder / f"{name}_parts_1.png", ade_segments(ids[which]))
        save(folder / name / "instance_000.png", np.zeros((height, width), np.uint8))
        label = f"{FULL}/annotations_detectron2/validation/{name}.tif"
        expected[label] = wanted[which].astype(np.uint16)
    return expected


def write_voc(root: Path) -> Expected:
    """Two images with objects, one that is background all over, one of another split."""
    listed = ["2007_000001", "2007_000002", "2007_000003"]
    values = np.array([*range(21), 255, 0, 1], np.uint8).reshape(4, 6)
    bare = np.array([0, 255] * 12, np.uint8).reshape(4, 6)
    for name, label in (
        *zip(listed, (values, values[::-1], bare), strict=True),
        ("2007_999999", values),
    ):
        image = Image.fromarray(label)
        image.putpalette([*range(255, -1, -1)] * 3)  # values are places in a palette
        (root / VOC / "SegmentationClassAug").mkdir(parents=True, exist_ok=True)
        image.save(root / VOC / "SegmentationClassAug" / f"{name}.png")
        save_image(root / VOC / "JPEGImages" / f"{name}.jpg", 4, 6)
    (root / VOC / "ImageSets/Segmentation").mkdir(parents=True)
    (root / VOC / "ImageSets/Segmentation/val.txt").write_text("\n".join(listed) + "\n")
    objects = np.array([255, *range(20), 255, 255, 0], np.uint8).reshape(4, 6)
    background = np.array([20, *range(20), 255, 20, 0], np.uint8).reshape(4, 6)
    return {
        f"{VOC}/annotations_detectron2/val/2007_000001.png": objects,
        f"{VOC}/annotations_detectron2/val/2007_000002.png": objects[::-1],
        f"{VOC}/annotations_detectron2_bg/val/2007_000001.png": background,
        f"{VOC}/annotations_detectron2_bg/val/2007_000002.png": background[::-1],
        f"{VOC}/annotations_detectron2_bg/val/2007_000003.png": np.where(bare == 0, 20, 255).astype(
            np.uint8
        ),
    }


def merged_json(as_detail: bool = True) -> dict:
    """Three ways to write a mask; the second covers part of the first, the third is not wanted.

    The third image has none.
    """
    id_key, list_key = ("image_id", "annos_segmentation") if as_detail else ("id", "annotations")
    images = {
        1: ("2008_000001.jpg", "val"),
        2: ("2008_000002.jpg", "train"),
        3: ("2008_000003.jpg", "val"),
    }
    mask = np.zeros((6, 10), np.uint8, order="F")
    mask[:, :4] = 1
    packed = rle.encode(mask)
    packed["counts"] = packed["counts"].decode()
    square = [6, 0, 10, 0, 10, 6, 6, 6]
    masks = [(2, packed), (458, {"size": [6, 10], "counts": [12, 24, 24]}), (3, [square])]
    return {
        "images": [
            {id_key: key, "file_name": name, "phase": phase, "height": 6, "width": 10}
            for key, (name, phase) in images.items()
        ],
        list_key: [
            {"image_id": image, "category_id": category, "segmentation": mask}
            for category, mask in masks
            for image in (1, 2)
        ],
        "categories": [{"category_id": 2, "name": "aeroplane"}],
    }


def write_context_59(root: Path, layout: str = "cat_seg", as_detail: bool = True) -> Expected:
    base, images = CONTEXT_LAYOUTS[layout]
    for name in ("2008_000001", "2008_000002", "2008_000003"):
        save_image(root / base / images / f"{name}.jpg", 6, 10)
    (root / base / "trainval_merged.json").write_text(json.dumps(merged_json(as_detail)))
    wanted = np.full((6, 10), 255, np.uint8)
    wanted[:, :4] = 0
    wanted[:, 2:6] = 58
    labels = f"{base}/annotations_detectron2/pc59_val"
    bare = np.full((6, 10), 255, np.uint8)
    return {f"{labels}/2008_000001.png": wanted, f"{labels}/2008_000003.png": bare}


def write_context_459(root: Path, layout: str = "cat_seg", with_list: bool = True) -> Expected:
    """Three images: the published list names the first two, this project's the last two."""
    base, images = CONTEXT_LAYOUTS[layout]
    values = np.arange(460, dtype=np.uint16).reshape(20, 23)
    (root / base / "trainval").mkdir(parents=True)
    names = ("2008_000001", "2008_000003", "2008_000007")
    for name in names:
        savemat(root / base / "trainval" / f"{name}.mat", {"LabelMap": values})
        save_image(root / base / images / f"{name}.jpg", 20, 23)
    if with_list:
        (root / CONTEXT_LIST).parent.mkdir(parents=True, exist_ok=True)
        (root / CONTEXT_LIST).write_text("\n".join(names[:2]))
    wanted = np.where(values == 0, 65535, values.astype(int) - 1).astype(np.uint16)
    labels = f"{base}/annotations_detectron2/pc459_val"
    return {f"{labels}/{name}.tif": wanted for name in (names[:2] if with_list else names[1:])}
