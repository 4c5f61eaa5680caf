"""docs/fine_tuning.md: its commands run, and what it says is loaded is."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

import train_net
from cat_seg.cli import evaluate as evaluate_benchmarks
from cat_seg.data.custom import CustomSpec
from cat_seg.data.registration import unregister
from cat_seg.utils.paths import REPO_ROOT
from tests.data.test_custom import NAMES, blocks, fill, tiny_options
from tests.published import OFT
from tests.tiny import batch, share_tokenizers, tiny_model

DOCUMENT = (REPO_ROOT / "docs" / "fine_tuning.md").read_text()
MAINS = {"train_net.py": train_net.main, "tools/evaluate_benchmarks.py": evaluate_benchmarks.main}


@pytest.fixture
def fields(tmp_path, monkeypatch):
    """The files of the documents' example, and HPS-Seg weights of five other classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    share_tokenizers(monkeypatch)
    for split in ("train", "val"):
        fill(tmp_path / "data/fields", split, 2)
    (tmp_path / "data/fields/classes.txt").write_text("\n".join(NAMES))
    shutil.copytree(REPO_ROOT / "configs", tmp_path / "configs")
    (tmp_path / "configs/fields.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "output/enhanced").mkdir(parents=True)
    source = tiny_model(*OFT, "MODEL.META_ARCHITECTURE", "EnhancedCATSeg")
    source(batch())  # so that there are prototypes
    torch.save({"model": source.state_dict()}, tmp_path / "output/enhanced/model_final.pth")
    yield tmp_path
    for name in [
        n for n in DatasetCatalog if isinstance(MetadataCatalog.get(n).get("spec"), CustomSpec)
    ]:
        unregister(name)
    for name in ("cat_seg", "detectron2", "fvcore"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def documented_commands() -> list[list[str]]:
    (block,) = re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL)
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def test_fine_tuning_from_weights_of_another_class_list(fields, monkeypatch):
    commands = documented_commands()
    assert [command[1] for command in commands] == [
        "tools/evaluate_benchmarks.py",
        "train_net.py",
        "tools/evaluate_benchmarks.py",
    ]
    for python, script, *arguments in commands:
        assert python == "python"
        monkeypatch.setattr(sys, "argv", [script, *arguments, *tiny_options(fields)])
        MAINS[script]()
    for folder in ("fields_before", "fields_after"):
        assert (fields / "output" / folder / "inference/fields_val/results.json").exists()
    (line,) = re.findall(r"^MODEL\.WEIGHTS output.*", DOCUMENT, re.MULTILINE)
    log = (fields / "output/fields_tuned/log.txt").read_text()
    said = [found for found in log.splitlines() if "MODEL.WEIGHTS" in found and "loaded" in found]
    assert len(said) == 1 and line.split(" (format")[1] in said[0]
    before = weights(fields / "output/enhanced/model_final.pth")
    after = weights(fields / "output/fields_tuned/model_final.pth")
    assert before["hpa.prototypes"].shape[0] == 5 and after["hpa.prototypes"].shape[0] == 3
    assert after["hpa.prototype_initialized"].any()
    frozen = "sem_seg_head.clip.image.proj"
    assert torch.equal(after[frozen], before[frozen])
    trained = "sem_seg_head.aggregator.cost_embedding.weight"
    moved = (after[trained] - before[trained]).abs().max()
    assert 0 < moved < 0.01  # two steps from where it was, not from a new start
