"""docs/reproduce.md: what it says of the batch holds on any number of GPUs."""

from __future__ import annotations

import re

import pytest

from cat_seg.data.build import images_per_process
from cat_seg.engine import load_config
from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT

DOCUMENT = (REPO_ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| (\d).*`bash run_train_test\.sh (\d) CONFIG FOLDER ?([^`]*)`.*\| (\d) \|$", re.M
)


def test_every_number_of_gpus_has_the_published_batch():
    rows = ROW.findall(DOCUMENT)
    assert [row[0] for row in rows] == ["4", "2", "1"]
    for gpus, given, changes, images in rows:
        assert gpus == given
        cfg = load_config("configs/vitb_384_enhanced.yaml", changes.split())
        assert cfg.SOLVER.IMS_PER_BATCH == 4
        each = images_per_process(cfg, int(gpus)) // cfg.SOLVER.ACCUMULATION_STEPS
        assert each == int(images)


def test_eight_gpus_cannot_share_it():
    with pytest.raises(UserError, match=r"SOLVER\.IMS_PER_BATCH is 4"):
        images_per_process(load_config("configs/vitb_384_enhanced.yaml", []), 8)


def test_the_configs_it_names_are_shipped():
    named = set(re.findall(r"configs/\w+\.yaml", DOCUMENT))
    assert len(named) == 5
    for name in named:
        assert (REPO_ROOT / name).is_file()
