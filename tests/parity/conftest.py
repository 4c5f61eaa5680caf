"""The published models at full size, from checkpoints in their own formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from torch import Tensor, nn

from cat_seg import add_cat_seg_config
from cat_seg.checkpoint.checkpointer import Checkpointer
from cat_seg.checkpoint.formats import convert
from cat_seg.engine.model import build_model
from cat_seg.utils.paths import REPO_ROOT
from tests.golden.weights_recipe import image, labels, recipe_value
from tests.parity.summary import LARGEST_DIFFERENCES

GOLDEN = REPO_ROOT / "tests" / "golden"
CONFIGS = {
    "cat_seg": "vitb_384.yaml",
    "h_clip": "vitb_384_oft.yaml",
    "hps_seg": "vitb_384_enhanced.yaml",
    "hyper_clip": "vitb_384_hyperbolic.yaml",
    "hyper_clip_pp": "vitb_384_hyperclip_plus.yaml",
    "hyro": "vitb_384_hyro.yaml",
}


@dataclass
class Case:
    """A published model, loaded, and what was recorded from the published code."""

    kind: str
    model: nn.Module
    golden: dict[str, np.ndarray]
    sources: dict[str, str]
    errors: dict[str, float] = field(default_factory=dict)

    def record(self, what: str, error: float) -> float:
        """Keep the largest error of its kind for the table at the end; returns it."""
        self.errors[what] = max(error, self.errors.get(what, 0.0))
        return error

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.golden["classes"]]

    def image(self, offset: int = 0, size: str = "size") -> Tensor:
        height, width = (int(side) for side in self.golden[size])
        return torch.from_numpy(image(int(self.golden["seed"]) + offset, height, width))

    def labels(self) -> Tensor:
        height, width = (int(side) for side in self.golden["size"])
        seed = int(self.golden["seed"]) + 3
        return torch.from_numpy(labels(seed, height, width, len(self.classes)))


@cache
def names(kind: str) -> dict:
    return json.loads((GOLDEN / f"{kind}.names.json").read_text())


def published_checkpoint(kind: str, classes: int) -> dict[str, Tensor]:
    """A checkpoint in a published format; tied entries share their storage, as published."""
    tied: dict[str, Tensor] = {}
    state = {}
    for name, entry in names(kind)["entries"].items():
        shape = tuple(entry["shape"])
        if name.startswith(("hpa.log", "hpa.proto")):
            shape = (classes, *shape[1:])
        if not entry["recipe"]:
            state[name] = torch.zeros(shape, dtype=torch.bool if "initialized" in name else None)
            continue
        key = name[name.index("attn_q_proj_oft") :] if "attn_q_proj_oft" in name else name
        if key not in tied:
            tied[key] = torch.from_numpy(recipe_value(name, shape))
        state[name] = tied[key]
    return state


@pytest.fixture(scope="session", params=CONFIGS)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Each published model in turn, loaded through MODEL.WEIGHTS by the shipped config."""
    kind = request.param
    golden = dict(np.load(GOLDEN / f"{kind}.npz"))
    model = load_published(kind, golden["classes"], tmp_path_factory.mktemp(kind))
    return Case(kind, model, golden, sources(kind))


@pytest.fixture
def case(published: Case, record_property: Callable[[str, object], None]) -> Iterator[Case]:
    """A published model; what the test records of it goes into the table at the end."""
    published.errors.clear()
    yield published
    record_property(LARGEST_DIFFERENCES, [published.kind, dict(published.errors)])


def load_published(kind: str, classes: np.ndarray, folder: Path) -> nn.Module:
    """Write the published checkpoint and load it as a user does. CLIP is never downloaded."""
    vocabulary, weights = folder / "classes.json", folder / f"{kind}.pth"
    vocabulary.write_text(json.dumps([str(name) for name in classes]))
    torch.save({"model": published_checkpoint(kind, len(classes))}, weights)
    cfg = add_cat_seg_config(get_cfg())
    cfg.merge_from_file(str(REPO_ROOT / "configs" / CONFIGS[kind]))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = str(weights)
    cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON = str(vocabulary)
    model = build_model(cfg)
    Checkpointer(model).load(cfg.MODEL.WEIGHTS)
    weights.unlink()
    return model


def sources(kind: str) -> dict[str, str]:
    """Our name -> published name."""
    placeholders = {
        name: torch.zeros(1).expand(entry["shape"] or [1])
        for name, entry in names(kind)["entries"].items()
    }
    return convert(placeholders).sources
