from __future__ import annotations

import shlex

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from cat_seg.data import BENCHMARKS, DATASETS, datasets_named, is_on_disk
from cat_seg.data.registration import spec_of
from cat_seg.data.vocabularies import load_vocabulary
from cat_seg.engine import load_config
from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT

VOC10, VOC12 = "VOCdevkit/VOC2010", "VOCdevkit/VOC2012"
ADE = "ADEChallengeData2016"
FULL = "ADE20K_2021_17_01"

SHARED = (
    "coco/coco_stuff/images",
    "pcontext/images",
    f"{VOC10}/JPEGImages",
    f"{VOC12}/JPEGImages",
)

# Name, image folder, label folder, label suffix, classes, ignore label.
PLACES = [
    *(
        (f"coco_2017_{name}_stuff_all_sem_seg", images, labels, ".png", 171, 255)
        for name, split in (("train", "train2017"), ("test", "val2017"))
        for images, labels in (
            (f"coco-stuff/images/{split}", f"coco-stuff/annotations_detectron2/{split}"),
            ("coco/coco_stuff/images", f"coco/coco_stuff/annotations_detectron2/{split}_stuff"),
            (
                f"coco/coco_stuff/images/{split}",
                f"coco/coco_stuff/annotations_detectron2/{split}_stuff",
            ),
        )
    ),
    *(
        (
            f"ade20k_150_{name}_sem_seg",
            f"{ADE}/images/{split}",
            f"{ADE}/annotations_detectron2/{split}",
            ".png",
            150,
            255,
        )
        for name, split in (("train", "training"), ("test", "validation"))
    ),
    (
        "ade20k_full_sem_seg_freq_val_all",
        f"{FULL}/images_detectron2/validation",
        f"{FULL}/annotations_detectron2/validation",
        ".tif",
        847,
        65535,
    ),
    *(
        (name, f"{VOC12}/JPEGImages", f"{VOC12}/{labels}", ".png", classes, 255)
        for name, labels, classes in (
            ("voc_2012_test_sem_seg", "annotations_detectron2/val", 20),
            ("voc_2012_test_sem_seg", "annotations_detectron2", 20),
            ("voc_2012_test_background_sem_seg", "annotations_detectron2_bg/val", 59),
            ("voc_2012_test_background_sem_seg", "annotations_detectron2_bg", 59),
        )
    ),
    *(
        (f"context_{classes}_test_sem_seg", images, labels, suffix, classes, ignore)
        for classes, suffix, ignore in ((59, ".png", 255), (459, ".tif", 65535))
        for images, labels in (
            (f"{VOC10}/JPEGImages", f"{VOC10}/annotations_detectron2/pc{classes}_val"),
            ("pcontext/images", "pcontext/annotations_detectron2"),
            ("pcontext/images", f"pcontext/annotations_detectron2/pc{classes}_val"),
        )
    ),
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def write_pair(root, images, labels, suffix):
    for folder, file in ((images, "a.jpg"), (labels, f"a{suffix}")):
        (root / folder).mkdir(parents=True)
        (root / folder / file).touch()


@pytest.mark.parametrize(("name", "images", "labels", "suffix", "classes", "ignore"), PLACES)
def test_every_dataset_in_every_layout(root, name, images, labels, suffix, classes, ignore):
    assert not is_on_disk(name)
    write_pair(root, images, labels, suffix)
    assert is_on_disk(name)
    assert DatasetCatalog.get(name) == [
        {
            "file_name": str(root / images / "a.jpg"),
            "sem_seg_file_name": str(root / labels / f"a{suffix}"),
        }
    ]
    metadata = MetadataCatalog.get(name)
    assert len(metadata.stuff_classes) == classes
    assert metadata.ignore_label == ignore
    assert metadata.evaluator_type == "sem_seg"


@pytest.mark.parametrize(("name", "images", "labels", "suffix"), [p[:4] for p in PLACES])
def test_only_folders_of_several_splits_may_hold_images_without_label(
    root, name, images, labels, suffix
):
    write_pair(root, images, labels, suffix)
    (root / images / "b.jpg").touch()
    if images in SHARED:
        assert len(DatasetCatalog.get(name)) == 1
    else:
        with pytest.raises(UserError, match=r"b\.jpg has no label"):
            DatasetCatalog.get(name)


def test_the_places_above_are_all_that_is_registered():
    assert {spec.name for spec in DATASETS} == {place[0] for place in PLACES}
    assert sum(len(spec.layouts) for spec in DATASETS) == len(PLACES)


def test_benchmarks_are_the_columns_of_the_results_table():
    assert dict(BENCHMARKS) == {
        "A-847": "ade20k_full_sem_seg_freq_val_all",
        "PC-459": "context_459_test_sem_seg",
        "A-150": "ade20k_150_test_sem_seg",
        "PC-59": "context_59_test_sem_seg",
        "PAS-20": "voc_2012_test_sem_seg",
        "PAS-20b": "voc_2012_test_background_sem_seg",
    }


def test_names_behind_the_twenty_classes_are_background_in_pas_20b_alone():
    merged = {spec.name: MetadataCatalog.get(spec.name).background_from for spec in DATASETS}
    assert {name for name, index in merged.items() if index is not None} == {
        "voc_2012_test_background_sem_seg"
    }
    assert merged["voc_2012_test_background_sem_seg"] == 20


@pytest.mark.parametrize(
    ("name", "expected", "script"),
    [
        ("coco_2017_train_stuff_all_sem_seg", 118287, "coco_stuff"),
        ("coco_2017_test_stuff_all_sem_seg", 5000, "coco_stuff"),
        ("ade20k_150_train_sem_seg", 20210, "ade20k_150"),
        ("ade20k_150_test_sem_seg", 2000, "ade20k_150"),
        ("ade20k_full_sem_seg_freq_val_all", 2000, "ade20k_full"),
        ("voc_2012_test_sem_seg", 1449, "voc"),
        ("voc_2012_test_background_sem_seg", 1449, "voc"),
        ("context_59_test_sem_seg", 5104, "pascal_context_59"),
        ("context_459_test_sem_seg", 5104, "pascal_context_459"),
    ],
)
def test_how_many_images_there_should_be_and_what_makes_them(root, name, expected, script):
    spec = spec_of(name)
    assert spec.expected == expected
    assert spec.drops_unlabeled == (name == "voc_2012_test_sem_seg")
    path = f"datasets/prepare_{script}.py"
    assert (REPO_ROOT / path).is_file()
    with pytest.raises(UserError, match=f"run `python {path}`") as caught:
        DatasetCatalog.get(name)
    message = str(caught.value)
    assert "\n" not in message
    for layout in spec.layouts:
        assert layout.images in message and layout.labels in message


def test_benchmarks_and_datasets_by_name():
    assert datasets_named(["PC-59", "voc_2012_test_sem_seg", "context_59_test_sem_seg"]) == [
        "context_59_test_sem_seg",
        "voc_2012_test_sem_seg",
    ]
    with pytest.raises(UserError, match=r"'A-151'; choose from .*voc_2012.* the benchmarks A-847,"):
        datasets_named(["A-150", "A-151"])


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        # COCO's categories: 12, "street sign", is not in the dataset; 182 is "wood".
        (
            "coco_2017_test_stuff_all_sem_seg",
            {1: "person", 13: "stop sign", 90: "toothbrush", 92: "banner", 182: "wood"},
        ),
        ("ade20k_full_sem_seg_freq_val_all", {2978: "wall", 312: "building", 430: "cat"}),
    ],
)
def test_datasets_with_category_ids_of_their_own_have_them(name, classes):
    metadata = MetadataCatalog.get(name)
    indices = metadata.stuff_dataset_id_to_contiguous_id
    assert sorted(indices.values()) == list(range(len(metadata.stuff_classes)))
    names = {category: metadata.stuff_classes[indices[category]] for category in classes}
    assert {category: name.split(",")[0] for category, name in names.items()} == classes
    train = MetadataCatalog.get("coco_2017_train_stuff_all_sem_seg")
    if name.startswith("coco"):
        assert train.stuff_dataset_id_to_contiguous_id == indices


@pytest.mark.parametrize("name", ["ade20k_150_test_sem_seg", "context_59_test_sem_seg"])
def test_other_datasets_have_none(name):
    assert MetadataCatalog.get(name).get("stuff_dataset_id_to_contiguous_id") is None


README = (REPO_ROOT / "datasets/README.md").read_text()


@pytest.mark.parametrize("spec", DATASETS, ids=lambda spec: spec.name)
def test_the_document_names_every_dataset_and_its_folders(spec):
    row = README[README.index("## Names") :]
    assert f"`{spec.name}`" in row
    for layout in spec.layouts:
        for folder in (layout.images, layout.labels):
            # The table gives val2017 and pc459_val in words.
            folder = folder.replace("val2017", "train2017").replace("pc459_val", "pc59_val")
            assert folder in row


def test_the_documented_training_on_ade20k_fits_the_dataset():
    command = README[README.index("## Training on ADE20K") :].split("```")[1]
    config, *changes = shlex.split(command.replace("\\\n", " "))[4:]
    cfg = load_config(str(REPO_ROOT / config), changes)
    (train,) = cfg.DATASETS.TRAIN
    assert train == "ade20k_150_train_sem_seg"
    names = load_vocabulary(cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON)
    assert names == MetadataCatalog.get(train).stuff_classes
    assert MetadataCatalog.get(train).ignore_label == cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    assert cfg.DATASETS.TEST == ("ade20k_150_test_sem_seg",)
