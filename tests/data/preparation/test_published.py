"""Every file that the published scripts write, by their rules spelled out pixel by pixel.

Folders, file names, image modes, pixels and, for PNG and JPEG, all bytes are compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from tests.data.preparation import miniatures as mini

CONTEXT = "VOCdevkit/VOC2010"
Written = dict[str, Image.Image | bytes]


def each_pixel(rule: Callable[[int], int], raw: Iterable[Iterable[int]], dtype: type) -> np.ndarray:
    return np.array([[rule(int(value)) for value in row] for row in raw], dtype)


def encoded(image: Image.Image, kind: str) -> bytes:
    content = BytesIO()
    image.save(content, kind)
    return content.getvalue()


def png(label: np.ndarray) -> bytes:
    return encoded(Image.fromarray(label), "PNG")


def read(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.array(file)


def coco_stuff(root: Path) -> Written:
    mini.write_coco(root)
    absent = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
    known = [number for number in range(182) if number not in absent]

    def rule(value: int) -> int:
        return known.index(value) if value in known else 255

    return {
        f"coco-stuff/annotations_detectron2/{split}/{raw.name}": png(
            each_pixel(rule, read(raw), np.uint8)
        )
        for split in ("train2017", "val2017")
        for raw in (root / f"coco-stuff/annotations/{split}").iterdir()
    }


def ade20k_150(root: Path) -> Written:
    """The training images too, which the published script converts by the same rule if asked to."""
    mini.write_ade150(root)
    return {
        f"{mini.ADE}/annotations_detectron2/{split}/{raw.name}": png(
            each_pixel(lambda value: (value - 1) % 256, read(raw), np.uint8)
        )
        for split in ("validation", "training")
        for raw in (root / mini.ADE / "annotations" / split).iterdir()
    }


def ade20k_full(root: Path) -> Written:
    """Images without and with reduction; the last one is gray."""
    shapes = ((20, 30), (512, 530), (600, 900), (900, 600), (513, 513), (21, 30))
    mini.write_ade_full(root, shapes)
    ids = json.loads(mini.RAW_IDS.joinpath("ade847.json").read_text())
    images = sorted((root / mini.FULL / "images/ADE/validation").glob("*/*/*.jpg"))
    for image, (height, width) in zip(images, shapes, strict=True):
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        mini.save(image, noise[..., 0] if image == images[-1] else noise, quality=95)
    written = {}
    for image in images:
        pixels, colors = read(image), read(image.with_name(f"{image.stem}_seg.png")).astype(int)
        numbers = colors[..., 0] // 10 * 256 + colors[..., 1]
        size = {(600, 900): (768, 512), (900, 600): (512, 768), (513, 513): (512, 512)}.get(
            numbers.shape
        )
        if size:
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
            numbers = cv2.resize(numbers.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
        label = np.full(numbers.shape, 65535, np.uint16)
        for number in np.unique(numbers):
            if number in ids:
                label[numbers == number] = ids.index(number)
        written[f"{mini.FULL}/images_detectron2/validation/{image.name}"] = encoded(
            Image.fromarray(pixels), "JPEG"
        )
        written[f"{mini.FULL}/annotations_detectron2/validation/{image.stem}.tif"] = (
            Image.fromarray(label)
        )
    assert read(images[-1]).ndim == 2
    return written


def voc(root: Path) -> Written:
    """With an image that is background all over, and one that is ignored all over."""
    mini.write_voc(root)
    listed = root / mini.VOC / "ImageSets/Segmentation/val.txt"
    listed.write_text(listed.read_text() + "2007_000004\n")
    mini.save(
        root / mini.VOC / "SegmentationClassAug/2007_000004.png", np.full((4, 6), 255, np.uint8)
    )
    mini.save_image(root / mini.VOC / "JPEGImages/2007_000004.jpg", 4, 6)
    written = {}
    for folder, background in (("annotations_detectron2", 255), ("annotations_detectron2_bg", 20)):
        for stem in listed.read_text().split():
            label = each_pixel(
                lambda value, zero=background: (
                    zero if value == 0 else value - 1 if value <= 20 else 255
                ),
                read(root / mini.VOC / f"SegmentationClassAug/{stem}.png"),
                np.uint8,
            )
            if (label != 255).any():
                written[f"{mini.VOC}/{folder}/val/{stem}.png"] = png(label)
    assert len(written) == 5
    return written


def pascal_context_59(root: Path) -> Written:
    labels = mini.write_context_59(root)
    return {name: png(label) for name, label in labels.items()}


def pascal_context_459(root: Path) -> Written:
    mini.write_context_459(root)
    values = np.arange(460).reshape(20, 23)
    label = each_pixel(lambda value: (value - 1) % 65536, values, np.uint16)
    return {
        f"{CONTEXT}/annotations_detectron2/pc459_val/{stem}.tif": Image.fromarray(label)
        for stem in (root / mini.CONTEXT_LIST).read_text().split()
    }


@pytest.mark.parametrize(
    "published",
    [coco_stuff, ade20k_150, ade20k_full, voc, pascal_context_59, pascal_context_459],
)
def test_all_files_are_as_published(published, root, prepare):
    written = published(root)
    before = {path for path in root.rglob("*") if path.is_file()}
    assert prepare(published.__name__) == 0
    made = {path for path in root.rglob("*") if path.is_file()} - before
    assert {str(path.relative_to(root)) for path in made} == set(written)
    for name, wanted in written.items():
        if isinstance(wanted, bytes):
            assert (root / name).read_bytes() == wanted, name
            continue
        with Image.open(root / name) as found:
            assert (found.format, found.mode) == ("TIFF", wanted.mode), name
            np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted), err_msg=name)


# The layout of PASCAL VOC that earlier versions wrote: no folder val.


def flatten(root: Path, keep: int = 0) -> None:
    """Move labels out of val/, all but the first `keep` of each dataset, which stay in both."""
    for folder in ("annotations_detectron2", "annotations_detectron2_bg"):
        for place, path in enumerate(sorted((root / mini.VOC / folder / "val").iterdir())):
            flat = root / mini.VOC / folder / path.name
            if place < keep:
                flat.write_bytes(path.read_bytes())
            else:
                path.rename(flat)


@pytest.mark.parametrize("begun", [0, 1])
def test_a_flat_copy_of_voc_is_found_and_not_made_again(root, prepare, capsys, begun):
    mini.write_voc(root)
    assert prepare("voc") == 0
    flatten(root, keep=begun)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.png")}
    capsys.readouterr()
    assert prepare("voc") == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.png")} == before
    printed = capsys.readouterr().out
    assert "2 up to date, 1 skipped" in printed and "(3 up to date)" in printed
    for name, count in (("voc_2012_test_sem_seg", 2), ("voc_2012_test_background_sem_seg", 3)):
        records = DatasetCatalog.get(name)
        assert len(records) == count
        assert "/val/" not in records[0]["sem_seg_file_name"]


def test_voc_in_both_layouts_is_read_as_published(root, prepare):
    mini.write_voc(root)
    assert prepare("voc") == 0
    flatten(root, keep=3)
    assert "/val/" in DatasetCatalog.get("voc_2012_test_sem_seg")[0]["sem_seg_file_name"]
