"""The quickstart's CLIPs of other kinds: selected, pre-trained, loaded and trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from cat_seg.configuration import load_config
from cat_seg.utils.paths import REPO_ROOT
from tests.tiny import image, labels
from tools.quickstart import __main__ as command
from tools.quickstart.classes import load_classes
from tools.quickstart.pipeline import Settings
from tools.quickstart.pretrain import PretrainSettings, pretrain
from tools.quickstart.training import CONFIG

KINDS = ("eva02", "siglip")


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_the_option_selects_the_model(
    kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def run(folder: Path, seed: int, settings: Settings, adapter: str) -> str:
        found.append(load_config(str(CONFIG), settings.options).MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED)
        return ""

    monkeypatch.setattr(command, "run_quickstart", run)
    given = ("--encoder", kind) if kind else ()
    command.main(["--output", str(tmp_path), *given])
    assert found == [f"configs/quickstart_{kind or 'clip'}.json"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_pretrained_weights_load_and_the_adapter_trains(kind: str, tmp_path: Path) -> None:
    weights = tmp_path / "clip.pt"
    options = command.ENCODERS[kind]
    settings = PretrainSettings(steps=2, batch=4, crops=1, test_crops=1, warmup=1)
    measured = pretrain(REPO_ROOT / options[1], weights, load_classes(), settings, seed=0)
    assert measured["loss"] > 0

    cfg = load_config(
        str(CONFIG), [*options, "MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS", str(weights), "OUTPUT_DIR", "x"]
    )
    model = build_model(cfg).train()
    batch = [{"image": image(128, 128), "sem_seg": labels(128, 128)} for _ in range(2)]
    sum(model(batch).values()).backward()
    (generators,) = (
        p for n, p in model.named_parameters() if n.endswith("clip.adapter.generators")
    )
    assert torch.isfinite(generators.grad).all() and generators.grad.abs().max() > 0
    frozen = (
        *model.sem_seg_head.clip.text.parameters(),
        *model.sem_seg_head.clip.image.parameters(),
    )
    assert not any(p.requires_grad for p in frozen)
