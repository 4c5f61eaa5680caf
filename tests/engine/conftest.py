"""A small dataset and config."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from cat_seg.data import DatasetSpec, Layout, register
from cat_seg.engine import load_config
from tests.engine import stand_in
from tests.log_fixture import log  # noqa: F401 (a fixture)
from tests.tiny import share_tokenizers, tiny_cfg


@pytest.fixture(scope="session")
def config_file(tmp_path_factory) -> Path:
    """The path of a config for the stand-in model and its registered dataset."""
    root = tmp_path_factory.mktemp("stand_in")
    path = stand_in.write_dataset(root)
    layout = Layout("stand_in/images", "stand_in/labels")
    for name in ("stand_in", "stand_in_again"):
        register(DatasetSpec(name, str(root / "classes.json"), (layout,)))
    register(DatasetSpec("stand_in_missing", str(root / "classes.json"), (Layout("no", "no"),)))
    yield path
    for name in ("stand_in", "stand_in_again", "stand_in_missing"):
        DatasetCatalog.remove(name)


@pytest.fixture(autouse=True)
def datasets(config_file, monkeypatch) -> None:
    """The datasets root is that of the stand-in; changes of the environment are undone."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(config_file.parent))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def cfg(config_file, tmp_path) -> CfgNode:
    """The stand-in's config, with an OUTPUT_DIR that exists."""
    cfg = load_config(str(config_file), ["OUTPUT_DIR", str(tmp_path / "out")])
    (tmp_path / "out").mkdir()
    return cfg


@pytest.fixture
def tiny(config_file, tmp_path, monkeypatch) -> CfgNode:
    """The config of a tiny CAT-Seg that trains on the stand-in's images for 5 iterations."""
    share_tokenizers(monkeypatch)
    (tmp_path / "clip").mkdir()
    keys = {
        "DATASETS.TRAIN": ("stand_in",),
        "DATASETS.TEST": ("stand_in",),
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.MIN_SIZE_TRAIN": (8,),
        "INPUT.MIN_SIZE_TEST": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 5,
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.CLIP_MULTIPLIER": 1.0,
        "SOLVER.WARMUP_ITERS": 0,
        "SEED": 1,
    }
    cfg = tiny_cfg(tmp_path / "clip", *(part for pair in keys.items() for part in pair))
    cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON = str(config_file.parent / "classes.json")
    return cfg
