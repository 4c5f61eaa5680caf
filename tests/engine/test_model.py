"""A model is built without CLIP's own weights where MODEL.WEIGHTS brings them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2 import modeling
from detectron2.config import CfgNode
from torch import nn

from cat_seg.checkpoint import Checkpointer
from cat_seg.cli import radius
from cat_seg.engine import Trainer, load_model
from cat_seg.engine.model import build_model
from cat_seg.errors import UserError
from cat_seg.predictor import Predictor
from tests.published import OFT, published
from tests.tiny import open_clip_model, tiny_cfg, tiny_model, write_clip

CLIP_WEIGHTS = "MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS"


def cfg_without_clip(folder: Path, *overrides) -> CfgNode:
    """A config that cannot be built wherever CLIP_WEIGHTS is read."""
    return tiny_cfg(folder, *OFT, CLIP_WEIGHTS, "absent.pt", *overrides)


def in_trainer(cfg, weights, folder):
    cfg.MODEL.WEIGHTS = weights
    model = Trainer.build_model(cfg)
    Checkpointer(model).resume_or_load(weights, resume=False)
    return model


def in_evaluation(cfg, weights, folder):
    """As with --resume, where MODEL.WEIGHTS may name another file or none."""
    return load_model(cfg, weights)


def in_predictor(cfg, weights, folder):
    cfg.MODEL.WEIGHTS = weights
    return Predictor(cfg).model


def in_radius(cfg, weights, folder):
    (folder / "config.yaml").write_text(cfg.dump())
    return radius.load_model(str(folder / "config.yaml"), weights, [])


@pytest.mark.parametrize("load", [in_trainer, in_evaluation, in_predictor, in_radius])
@pytest.mark.parametrize("kind", ["ours", "wrapped", "published"])
def test_clip_weights_are_not_read_where_the_checkpoint_holds_clip(tmp_path, load, kind):
    source = tiny_model(*OFT)
    state = published(source) if kind == "published" else source.state_dict()
    path = tmp_path / "model.pth"
    torch.save({"model": state, "iteration": 3} if kind == "wrapped" else state, path)
    own = load(cfg_without_clip(tmp_path), str(path), tmp_path).state_dict()
    assert all(torch.equal(own[name], value) for name, value in source.state_dict().items())


def projection(model: nn.Module) -> torch.Tensor:
    return model.sem_seg_head.clip.text.text_projection


def test_detectron2s_build_reads_them_whatever_the_checkpoint_holds(tmp_path):
    """Its caller may load no checkpoint at all."""
    path = tmp_path / "model.pth"
    torch.save(tiny_model().state_dict(), path)
    cfg = tiny_cfg(tmp_path, "MODEL.WEIGHTS", str(path))
    given = cfg.clone()
    assert projection(modeling.build_model(cfg)).any()
    assert not projection(build_model(cfg)).any()
    assert cfg == given


def test_they_are_read_without_a_checkpoint(tmp_path):
    assert projection(build_model(tiny_cfg(tmp_path))).any()
    with pytest.raises(UserError, match=r"CLIP_WEIGHTS: no file absent\.pt"):
        build_model(cfg_without_clip(tmp_path))


def test_a_plain_clip_in_model_weights_does_not_stand_for_clip(tmp_path):
    """It does not load as a model; the start weights are asked for as without it."""
    torch.save(open_clip_model(write_clip(tmp_path)).state_dict(), tmp_path / "clip.pt")
    with pytest.raises(UserError, match=r"absent\.pt"):
        build_model(cfg_without_clip(tmp_path, "MODEL.WEIGHTS", str(tmp_path / "clip.pt")))


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS.*absent\.pth"):
        build_model(tiny_cfg(tmp_path, "MODEL.WEIGHTS", "absent.pth"))
