"""The dataset on disk: laid out as registered, unseen classes in their split alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

import cat_seg.data  # noqa: F401, registers the datasets
from tools.quickstart.classes import load_classes
from tools.quickstart.dataset import SPLITS, DatasetSettings, random_scene, write_dataset

CLASSES = load_classes()
SETTINGS = DatasetSettings(train_scenes=6, val_scenes=3, size=48)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_dataset(tmp_path / "quickstart", CLASSES, SETTINGS, seed=0)
    return tmp_path


def test_registered_datasets_find_the_files(root: Path) -> None:
    for split in SPLITS:
        records = DatasetCatalog.get(f"quickstart_{split}")
        assert len(records) == (6 if split == "train" else 3)
        image = np.asarray(Image.open(records[0]["file_name"]))
        label = np.asarray(Image.open(records[0]["sem_seg_file_name"]))
        assert image.shape == (48, 48, 3)
        assert label.shape == (48, 48) and label.dtype == np.uint8
        names = MetadataCatalog.get(f"quickstart_{split}").stuff_classes
        assert tuple(names) == (CLASSES.seen if split == "train" else CLASSES.names)


def test_files_depend_on_the_seed_alone(root: Path, tmp_path: Path) -> None:
    def pictures(folder: Path) -> list[bytes]:
        return [file.read_bytes() for file in sorted(folder.rglob("*.png"))]

    for name, seed in (("same", 0), ("other", 1)):
        write_dataset(tmp_path / name, CLASSES, SETTINGS, seed=seed)
    first = pictures(root / "quickstart")
    assert len(first) == 24
    assert first == pictures(tmp_path / "same")
    assert first != pictures(tmp_path / "other")


@pytest.mark.parametrize("split", SPLITS)
def test_unseen_classes_are_in_their_split_alone(split: str) -> None:
    labels = [
        random_scene(np.random.default_rng([9, i]), CLASSES, split, 64)[1] for i in range(150)
    ]
    present = set(np.unique(labels).tolist())
    unseen = set(CLASSES.unseen_shapes)
    assert present <= set(range(len(CLASSES.names)))
    if split == "val_unseen":
        assert unseen <= present
        holding = [bool(unseen & set(np.unique(label).tolist())) for label in labels]
        assert np.mean(holding) > 0.95  # a later shape may hide one
    else:
        assert not unseen & present
        assert set(range(22)) <= present


def test_a_scene_has_two_to_four_shapes_on_one_ground() -> None:
    for i in range(30):
        _, label = random_scene(np.random.default_rng(i), CLASSES, "train", 64)
        present = set(np.unique(label).tolist())
        assert len(present & set(CLASSES.grounds)) == 1
        assert 1 <= len(present - set(CLASSES.grounds)) <= 4
