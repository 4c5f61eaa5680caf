"""The dataset on disk: laid out as registered, unseen classes in their split alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from cat_seg.engine import load_config
from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT
from tools.quickstart.classes import load_classes
from tools.quickstart.dataset import (
    SPLITS,
    DatasetSettings,
    _place,
    random_scene,
    write_dataset,
)
from tools.quickstart.training import CONFIG, Workplace

CLASSES = load_classes()
SMALL = DatasetSettings(size=64)
SETTINGS = DatasetSettings(train_scenes=6, val_scenes=3, size=48)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    place = Workplace(tmp_path / "drawn", seed=0)
    write_dataset(place.dataset, CLASSES, SETTINGS, seed=0)
    return place


def test_the_datasets_of_the_config_find_the_files(place: Workplace) -> None:
    cfg = load_config(str(CONFIG), place.dataset_options)
    assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} == {f"quickstart_{split}" for split in SPLITS}
    for split in SPLITS:
        records = DatasetCatalog.get(f"quickstart_{split}")
        assert len(records) == (6 if split == "train" else 3)
        image = np.asarray(Image.open(records[0]["file_name"]))
        label = np.asarray(Image.open(records[0]["sem_seg_file_name"]))
        assert image.shape == (48, 48, 3)
        assert label.shape == (48, 48) and label.dtype == np.uint8
        names = MetadataCatalog.get(f"quickstart_{split}").stuff_classes
        assert tuple(names) == (CLASSES.seen if split == "train" else CLASSES.names)
    assert CLASSES.names[: len(CLASSES.seen)] == CLASSES.seen


def test_the_config_names_the_folders_of_the_default_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    default = Workplace(tmp_path / "output" / "quickstart", seed=0)
    write_dataset(default.dataset, CLASSES, SETTINGS, seed=0)
    load_config(str(CONFIG))
    for split in SPLITS:
        images = {Path(r["file_name"]) for r in DatasetCatalog.get(f"quickstart_{split}")}
        assert images == set((default.dataset / "images" / split).iterdir())


def test_missing_data_names_its_command(tmp_path: Path) -> None:
    load_config(str(CONFIG), Workplace(tmp_path, seed=0).dataset_options)
    for split in SPLITS:
        with pytest.raises(
            UserError, match=rf"quickstart_{split}\.IMAGES: .*; run `make quick"
        ) as e:
            DatasetCatalog.get(f"quickstart_{split}")
        assert str(tmp_path) in str(e.value)


def test_the_document_names_the_datasets() -> None:
    text = (REPO_ROOT / "datasets" / "README.md").read_text()
    assert all(f"`quickstart_{split}`" in text for split in SPLITS)


def test_files_depend_on_the_seed_alone(place: Workplace, tmp_path: Path) -> None:
    def pictures(folder: Path) -> list[bytes]:
        return [file.read_bytes() for file in sorted(folder.rglob("*.png"))]

    for name, seed in (("same", 0), ("other", 1)):
        write_dataset(tmp_path / name, CLASSES, SETTINGS, seed=seed)
    first = pictures(place.dataset)
    assert len(first) == 24
    assert first == pictures(tmp_path / "same")
    assert first != pictures(tmp_path / "other")


@pytest.mark.parametrize("split", SPLITS)
def test_unseen_classes_are_in_their_split_alone(split: str) -> None:
    labels = [
        random_scene(np.random.default_rng([9, i]), CLASSES, split, SMALL)[1] for i in range(150)
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
        _, label = random_scene(np.random.default_rng(i), CLASSES, "train", SMALL)
        present = set(np.unique(label).tolist())
        assert len(present & set(CLASSES.grounds)) == 1
        assert 1 <= len(present - set(CLASSES.grounds)) <= 4


def test_shapes_occlude_each_other_where_they_may() -> None:
    def least_distance(apart: float) -> float:
        settings = DatasetSettings(size=64, radius=(0.2, 0.2), apart=apart)
        pairs = [_place(np.random.default_rng(i), [0, 1], settings) for i in range(40)]
        return min(np.hypot(a.x - b.x, a.y - b.y) for a, b in pairs)

    limit = 0.85 * 2 * 0.2 * 64
    assert least_distance(0.85) > limit > 2 * least_distance(0.1)


def test_the_other_domain_is_drawn_in_another_style(tmp_path: Path) -> None:
    settings = DatasetSettings(train_scenes=1, val_scenes=12, size=48, other_domain=True)
    write_dataset(tmp_path, CLASSES, settings, seed=0)

    def read(kind: str, split: str) -> np.ndarray:
        files = sorted((tmp_path / kind / split).iterdir())
        return np.stack([np.asarray(Image.open(file)) for file in files])

    plain, other = read("images", "val_unseen"), read("images", "val_other")
    assert other.mean() < 0.75 * plain.mean()
    blue = [pixels[..., 2].mean() / pixels[..., 0].mean() for pixels in (plain, other)]
    assert blue[1] > 1.2 * blue[0]
    assert set(np.unique(read("annotations", "val_other"))) & set(CLASSES.unseen_shapes)
