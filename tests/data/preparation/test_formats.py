"""Every script on a miniature of its raw format, in every layout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import ExifTags, Image
from torch.nn.functional import interpolate

from cat_seg.data.preparation.sources import read_names
from cat_seg.data.registration import load_raw_ids, spec_of
from cat_seg.data.vocabularies import load_vocabulary, shipped_path
from cat_seg.utils.paths import REPO_ROOT
from tests.data.preparation import miniatures as mini

ADE_150 = "ADE_val_00000001"
CASES = {
    **{
        f"coco_stuff-{layout}": ("coco_stuff", mini.write_coco, {"layout": layout})
        for layout in mini.COCO_LAYOUTS
    },
    "ade20k_150": ("ade20k_150", mini.write_ade150, {}),
    "ade20k_full": ("ade20k_full", mini.write_ade_full, {}),
    "voc": ("voc", mini.write_voc, {}),
    **{
        f"{name}-{layout}-{option}-{given}": (name, write, {"layout": layout, option: given})
        for name, write, option in (
            ("pascal_context_59", mini.write_context_59, "as_detail"),
            ("pascal_context_459", mini.write_context_459, "with_list"),
        )
        for layout in mini.CONTEXT_LAYOUTS
        for given in (False, True)
    },
}
DATASETS = {
    "coco_stuff": [mini.COCO.format("train"), mini.COCO.format("test")],
    "ade20k_150": ["ade20k_150_test_sem_seg", "ade20k_150_train_sem_seg"],
    "ade20k_full": ["ade20k_full_sem_seg_freq_val_all"],
    "voc": ["voc_2012_test_sem_seg", "voc_2012_test_background_sem_seg"],
    "pascal_context_59": ["context_59_test_sem_seg"],
    "pascal_context_459": ["context_459_test_sem_seg"],
}


def converted(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and "annotations_detectron2" in str(path)
    )


@pytest.mark.parametrize("case", CASES)
def test_labels_are_as_expected_where_the_registration_looks(case, root, prepare, capsys):
    script, write, options = CASES[case]
    expected = write(root, **options)
    assert prepare(script) == 0
    assert converted(root) == sorted(expected)
    for name, label in expected.items():
        with Image.open(root / name) as file:
            found = np.asarray(file)
        assert found.dtype == label.dtype
        np.testing.assert_array_equal(found, label)
    records = [record for name in DATASETS[script] for record in DatasetCatalog.get(name)]
    assert {record["sem_seg_file_name"] for record in records} == {
        str(root / name) for name in expected
    }
    printed = capsys.readouterr()
    for name in DATASETS[script]:
        assert f"{name}: {len(DatasetCatalog.get(name))} labels in {root}" in printed.out
        assert f"warning: {name}: " in printed.err and "incomplete" in printed.err


def test_unlabeled_images_are_counted_in_pas_20_alone(root, prepare, capsys):
    mini.write_voc(root)
    stale = root / mini.VOC / "annotations_detectron2/val/2007_000003.png"
    mini.save(stale, np.zeros((4, 6), np.uint8))
    os.utime(stale, (0, 0))  # of a source that has changed
    prepare("voc")
    assert not stale.exists()
    printed = capsys.readouterr()
    assert "(2 converted, 1 skipped as unlabeled)" in printed.out
    assert printed.err.count("3 of 1449 expected labels: the download is incomplete") == 2


def test_the_first_layout_with_raw_data_wins(root, prepare):
    mini.write_coco(root, "cat_seg")
    expected = mini.write_coco(root, "hps_seg")
    assert prepare("coco_stuff") == 0
    assert converted(root) == sorted(expected)


def test_one_split_of_coco_stuff_is_enough(root, prepare, capsys):
    expected = mini.write_coco(root)
    (root / "coco-stuff/annotations/train2017").rename(root / "elsewhere")
    assert prepare("coco_stuff") == 0
    assert converted(root) == sorted(name for name in expected if "val2017" in name)
    assert "no raw labels for coco_2017_train_stuff_all_sem_seg" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["training", "validation"])
def test_one_split_of_ade20k_150_is_enough(root, prepare, capsys, split):
    expected = mini.write_ade150(root)
    (root / mini.ADE / "annotations" / split).rename(root / "elsewhere")
    assert prepare("ade20k_150") == 0
    assert converted(root) == sorted(name for name in expected if split not in name)
    assert f"looked for {mini.ADE}/annotations/{split}" in capsys.readouterr().err


def full_pair(root: Path, number: int = 0) -> tuple[Path, Path]:
    name = f"ADE_val_{number:08d}"
    folder = root / mini.FULL / "images/ADE/validation" / f"kind_{number}" / "scene"
    return folder / f"{name}.jpg", root / mini.FULL / f"images_detectron2/validation/{name}.jpg"


def test_copied_images_of_ade20k_full_are_encoded_anew(root, prepare, capsys):
    mini.write_ade_full(root)
    raw, made = full_pair(root)
    mini.save_image(raw, 20, 30, quality=95)
    assert prepare("ade20k_full") == 0
    encoded = made.read_bytes()
    made.write_bytes(raw.read_bytes())  # as earlier versions wrote it
    assert prepare("ade20k_full") == 0
    assert made.read_bytes() == encoded != raw.read_bytes()
    capsys.readouterr()
    assert prepare("ade20k_full") == 0
    assert "(1 up to date)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "reduced"),
    [((600, 800), (512, 683)), ((800, 600), (683, 512)), ((1024, 1025), (512, 512))],
)
def test_large_images_of_ade20k_full_are_reduced(root, prepare, shape, reduced):
    [(name, label)] = mini.write_ade_full(root, (shape,)).items()
    raw, made = full_pair(root)
    noise = np.random.default_rng(0).integers(0, 256, (shape[0], shape[1], 1), np.uint8)
    mini.save(raw, noise.repeat(3, 2), quality=100)
    assert prepare("ade20k_full") == 0

    # Nearest: the raw pixel in which the upper left corner of the new one lies.
    rows, columns = (np.arange(n) * o // n for n, o in zip(reduced, shape, strict=True))
    with Image.open(root / name) as file:
        np.testing.assert_array_equal(np.asarray(file), label[rows][:, columns])

    # Bilinear without smoothing; far closer than what is smoothed, though JPEG loses some.
    pixels = torch.from_numpy(np.array(Image.open(raw))).permute(2, 0, 1)[None].float()
    found = torch.from_numpy(np.array(Image.open(made))).permute(2, 0, 1)[None].float()
    assert found.shape[-2:] == reduced
    exact, smooth = (
        (found - interpolate(pixels, reduced, mode="bilinear", antialias=antialias)).abs().mean()
        for antialias in (False, True)
    )
    assert exact < 0.8 * smooth


def test_segments_of_ade20k_full_fit_the_pixels_as_stored(root, prepare):
    mini.write_ade_full(root)
    raw, made = full_pair(root)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(raw) as image:
        image.load()
    image.save(raw, exif=exif)
    assert prepare("ade20k_full") == 0
    with Image.open(made) as image:
        assert image.size == (30, 20)
        assert ExifTags.Base.Orientation not in image.getexif()


def test_unequal_raw_sizes_of_ade20k_full_are_refused(root, prepare, capsys):
    mini.write_ade_full(root)
    raw, made = full_pair(root)
    mini.save_image(raw, 40, 60)
    assert prepare("ade20k_full") == 2
    assert f"its image {raw} is 60x40" in capsys.readouterr().err
    assert not made.exists() and converted(root) == []


@pytest.mark.parametrize(
    ("script", "write", "raw"),
    [
        (
            "ade20k_150",
            mini.write_ade150,
            f"{mini.ADE}/annotations/validation/{ADE_150}.png",
        ),
        (
            "pascal_context_459",
            mini.write_context_459,
            "VOCdevkit/VOC2010/trainval/2008_000001.mat",
        ),
    ],
)
def test_values_outside_the_classes_are_refused(root, prepare, capsys, script, write, raw):
    write(root)
    if raw.endswith(".png"):
        mini.save(root / raw, np.full((8, 19), 151, np.uint8))
    else:
        mini.savemat(root / raw, {"LabelMap": np.full((20, 23), 460, np.uint16)})
    assert prepare(script) == 2
    assert f"{root / raw} has the value" in capsys.readouterr().err
    assert not [name for name in converted(root) if Path(raw).stem in name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"Labels": np.ones((20, 23))}, "has no LabelMap"),
        ({"LabelMap": np.ones((20, 23, 2), np.uint16)}, "not a single channel of integers"),
        ({"LabelMap": np.ones((0, 0), np.uint16)}, "not a single channel of integers"),
        ({"LabelMap": np.full((20, 23), np.nan)}, "has the value"),
        ({"LabelMap": "text"}, "cannot convert"),
    ],
)
def test_a_strange_mat_file_is_named(root, prepare, capsys, content, message):
    expected = mini.write_context_459(root)
    raw = root / "VOCdevkit/VOC2010/trainval/2008_000001.mat"
    mini.savemat(raw, content)
    for image in (root / "VOCdevkit/VOC2010/JPEGImages").iterdir():
        image.unlink()  # no sizes to compare
    assert prepare("pascal_context_459") == 2
    printed = capsys.readouterr().err
    assert len([line for line in printed.splitlines() if message in line and str(raw) in line]) == 1
    assert "Traceback" not in printed
    assert converted(root) == [name for name in sorted(expected) if raw.stem not in name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["annos_segmentation"][0].update(segmentation=None), "broken"),
        (lambda content: content.pop("images"), "KeyError"),
        (lambda content: content["images"][0].pop("file_name"), "KeyError"),
        (lambda content: content["images"][0].update(file_name=1), "TypeError"),
        (lambda content: content["annos_segmentation"][0].pop("image_id"), "KeyError"),
        (lambda content: content["images"][0].update(height=-1), "replace or remove it"),
        (
            lambda content: content.update(images=content["images"][1:2]),
            "no images with phase 'val'",
        ),
    ],
)
def test_a_broken_merged_json_is_one_line(root, prepare, capsys, change, message):
    mini.write_context_59(root)
    path = root / "VOCdevkit/VOC2010/trainval_merged.json"
    content = mini.merged_json()
    change(content)
    path.write_text(mini.json.dumps(content))
    assert prepare("pascal_context_59") == 2
    error = [line for line in capsys.readouterr().err.splitlines() if message in line]
    assert len(error) == 1 and str(path) in error[0]


def test_a_missing_list_of_validation_images_is_one_line(root, prepare, capsys):
    mini.write_voc(root)
    names = root / mini.VOC / "ImageSets/Segmentation/val.txt"
    names.unlink()
    assert prepare("voc") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(names) in line


def test_the_shipped_validation_list_of_pascal_context():
    names = read_names(REPO_ROOT / "datasets/pascalcontext_val.txt")
    assert len(names) == len(set(names)) == 5104
    assert names == sorted(names)
    assert (names[0], names[-1]) == ("2008_000002", "2010_006086")
    for dataset in ("context_59_test_sem_seg", "context_459_test_sem_seg"):
        assert spec_of(dataset).expected == len(names)


def test_validation_images_that_were_not_downloaded_are_counted(root, prepare, capsys):
    expected = mini.write_context_459(root, with_list=False)
    assert prepare("pascal_context_459") == 0
    assert converted(root) == sorted(expected)
    printed = capsys.readouterr()
    assert "2 labels in" in printed.out
    assert "2 of 5104 expected labels: the download is incomplete" in printed.err
    assert "5102 of the 5104 validation images are missing from" in printed.err
    assert "(first: 2008_000002.mat); the download is incomplete" in printed.err


def test_a_download_without_any_validation_image_is_one_line(root, prepare, capsys):
    mini.write_context_459(root)
    (root / mini.CONTEXT_LIST).write_text("2010_000001\n2010_000002\n")
    assert prepare("pascal_context_459") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{root / 'VOCdevkit/VOC2010/trainval'} has none of the 2 validation images" in line


@pytest.mark.parametrize(
    ("name", "vocabulary", "some"),
    [
        ("coco_stuff", "coco", {0: 0, 11: 12, 170: 181}),
        ("ade847", "ade847", {0: 2978, 1: 312, 2: 2420}),
        ("pc59", "pc59", {0: 2, 58: 458}),
    ],
)
def test_raw_ids_are_as_many_as_the_classes(name, vocabulary, some):
    ids = load_raw_ids(name)
    assert len(ids) == len(set(ids)) == len(load_vocabulary(shipped_path(vocabulary)))
    assert {index: ids[index] for index in some} == some


@pytest.mark.parametrize("script", DATASETS)
def test_missing_raw_data_is_one_line_with_folders_and_download(script, root, prepare, capsys):
    assert prepare(script) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no raw labels for ") and f"in {root} (looked for " in line
    assert "unpack" in line and "--root" in line
    if script in ("coco_stuff", "pascal_context_59", "pascal_context_459"):
        assert "coco-stuff/" in line or "VOCdevkit/VOC2010/" in line
        assert "coco/coco_stuff/" in line or "pcontext/" in line
    assert os.listdir(root) == []
