"""Folders to share: what is written, and that the model in them answers the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from huggingface_hub import ModelCard
from safetensors import safe_open
from torch import nn

from cat_seg.configuration import load_config
from cat_seg.errors import UserError
from cat_seg.hub import ModelFiles, locate
from cat_seg.hub.pretrained import save_pretrained
from cat_seg.predictor import Predictor
from tests.published import HEAD, MODELS
from tests.tiny import CLASSES, answer, image, open_clip_model, shake, tiny_cfg, write_clip

IMAGE = {"image": image(70, 90)}
FROZEN = (f"{HEAD}CLIP_FINETUNE", "frozen")
ADAPTED = {name: MODELS[name] for name in ("H-CLIP", "HyperCLIP", "HPS-Seg")} | {"frozen": FROZEN}


def model_and_cfg(folder: Path, *overrides: Any) -> tuple[nn.Module, CfgNode]:
    """A tiny model over a CLIP in a file, with noise in all that may train."""
    clip = folder / "clip.pt"
    if not clip.exists():
        torch.save(open_clip_model(write_clip(folder)).state_dict(), clip)
    cfg = tiny_cfg(folder, f"{HEAD}CLIP_WEIGHTS", str(clip), *overrides)
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, part in model.sem_seg_head.named_children():
        shake(part.adapter if name == "clip" else part, 0.02)
    return model, cfg


def loaded(files: ModelFiles, *overrides: str) -> nn.Module:
    given = ["MODEL.DEVICE", "cpu", *overrides, *files.overrides()]
    return Predictor(load_config(str(files.config), given)).model


@pytest.mark.parametrize("system", ["CAT-Seg", "H-CLIP", "HyperCLIP", "HPS-Seg"])
def test_answers_are_the_same_bits(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cfg = model_and_cfg(tmp_path, *MODELS[system])
    folder = save_pretrained(model, cfg, tmp_path / "shared")
    (tmp_path / "clip.pt").unlink()
    (tmp_path / "classes.json").write_text('["another"]')
    monkeypatch.chdir("/")
    again = loaded(locate(folder))
    assert again.vocabulary == tuple(CLASSES)
    assert torch.equal(answer(again, IMAGE)[0], answer(model, IMAGE)[0])


@pytest.mark.parametrize("system", ADAPTED)
def test_adapters_alone_give_the_same_bits_over_their_clip(system: str, tmp_path: Path) -> None:
    model, cfg = model_and_cfg(tmp_path, *ADAPTED[system])
    folder = save_pretrained(model, cfg, tmp_path / "shared", clip=False)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if ".text.t" in name or ".image.t" in name]  # noqa: SIM118
    files, clip = locate(folder), f"{HEAD}CLIP_WEIGHTS"
    with pytest.raises(UserError, match=r"CLIP_WEIGHTS: no file clip.pt"):
        loaded(files)
    again = loaded(files, clip, str(tmp_path / "clip.pt"))
    assert torch.equal(answer(again, IMAGE)[0], answer(model, IMAGE)[0])
    with pytest.raises(UserError, match="belong to another CLIP"):
        loaded(files, clip, "random")


@pytest.mark.parametrize("tuning", ["attention", "full", "oft"])
def test_a_trained_clip_cannot_be_left_out(tuning: str, tmp_path: Path) -> None:
    model, cfg = model_and_cfg(tmp_path, f"{HEAD}CLIP_FINETUNE", tuning)
    with pytest.raises(UserError, match=f"CLIP_FINETUNE '{tuning}' trained them"):
        save_pretrained(model, cfg, tmp_path / "shared", clip=False)
    assert not (tmp_path / "shared").exists()


def test_a_random_clip_cannot_be_left_out(tmp_path: Path) -> None:
    model, cfg = model_and_cfg(tmp_path, *FROZEN)
    cfg.MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS = "random"
    with pytest.raises(UserError, match="nowhere else"):
        save_pretrained(model, cfg, tmp_path / "shared", clip=False)


def test_a_shared_parameter_is_stored_once(tmp_path: Path) -> None:
    model, cfg = model_and_cfg(tmp_path)
    layers = model.sem_seg_head.aggregator.layers
    layers[1].classes = layers[0].classes
    folder = save_pretrained(model, cfg, tmp_path / "shared")
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if ".layers.1.classes." in name]  # noqa: SIM118
    assert torch.equal(answer(loaded(locate(folder)), IMAGE)[0], answer(model, IMAGE)[0])


def test_the_folder_names_nothing_of_this_machine(tmp_path: Path) -> None:
    custom = {"IMAGES": str(tmp_path), "LABELS": str(tmp_path), "CLASSES": "x.json"}
    model, cfg = model_and_cfg(tmp_path, "OUTPUT_DIR", str(tmp_path))
    cfg.MODEL.WEIGHTS = str(tmp_path / "start.pth")
    cfg.DATASETS.CUSTOM.mine = CfgNode(custom)
    cfg.MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON = str(tmp_path / "classes.json")
    folder = save_pretrained(model, cfg, tmp_path / "shared")
    texts = {
        file.name: file.read_text() for file in folder.iterdir() if file.suffix != ".safetensors"
    }
    assert sorted(texts) == ["README.md", "clip_config.json", "config.yaml", "vocabulary.json"]
    assert not [name for name, text in texts.items() if str(tmp_path) in text]
    assert json.loads(texts["vocabulary.json"]) == CLASSES
    cfg.MODEL.ADAPTER.MINE = CfgNode({"TABLE": "/tables/a.pt"})
    with pytest.raises(UserError, match=r"MODEL.ADAPTER.MINE.TABLE is '/tables/a.pt'"):
        save_pretrained(model, cfg, folder)


def test_files_of_the_folder_are_replaced_and_others_stay(tmp_path: Path) -> None:
    model, cfg = model_and_cfg(tmp_path)
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "README.md").write_text("old")
    (folder / "notes.txt").write_text("mine")
    save_pretrained(model, cfg, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "README.md").read_text() != "old"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_whoever_may_read_the_config_may_read_the_weights(tmp_path: Path) -> None:
    folder = save_pretrained(*model_and_cfg(tmp_path), tmp_path / "shared")
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.yaml").stat().st_mode


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    model, cfg = model_and_cfg(tmp_path)
    (tmp_path / "shared").write_text("a file")
    with pytest.raises(UserError, match=r"^cannot write .*shared: File exists"):
        save_pretrained(model, cfg, tmp_path / "shared")


def test_the_card_is_what_the_hub_reads(tmp_path: Path) -> None:
    model, cfg = model_and_cfg(tmp_path, *MODELS["H-CLIP"])
    cfg.DATASETS.TRAIN = ("quickstart_train",)
    results = tmp_path / "results.json"
    content = {
        "dataset": "ade20k_150_test_sem_seg",
        "sem_seg": {"mIoU": 31.25, "mACC": 50.0, "pACC": None},
        "counts": {"images": 3, "skipped": 0, "expected": 3},
    }
    results.write_text(json.dumps(content))
    folder = save_pretrained(
        model, cfg, tmp_path / "shared", name="mine", license="mit", results=[results]
    )
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit"
    assert card.data.pipeline_tag == "image-segmentation"
    assert card.data.datasets == ["quickstart_train"]
    assert card.data.base_model is None
    metrics = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert metrics == {"mIoU": 31.25, "mACC": 50.0}
    assert "| A-150 | 31.25 |" in card.text
    cfg.MODEL.SEM_SEG_HEAD.merge_from_list(
        ["CLIP_PRETRAINED", "ViT-B/16", "CLIP_WEIGHTS", "openai"]
    )
    save_pretrained(model, cfg, folder)
    assert (
        ModelCard.load(folder / "README.md").data.base_model
        == "timm/vit_base_patch16_clip_224.openai"
    )
    assert os.listdir(folder).count("clip_config.json") == 0


def test_results_of_part_of_a_dataset_are_left_out(tmp_path: Path) -> None:
    model, cfg = model_and_cfg(tmp_path)
    results = tmp_path / "results.json"
    counts = {"images": 2, "skipped": 1, "expected": 3}
    results.write_text(json.dumps({"dataset": "d", "sem_seg": {"mIoU": 1.0}, "counts": counts}))
    folder = save_pretrained(model, cfg, tmp_path / "shared", results=[results])
    assert ModelCard.load(folder / "README.md").data.eval_results is None
