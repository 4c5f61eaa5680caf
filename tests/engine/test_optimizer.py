from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cat_seg.engine.optimizer import build_optimizer, parameter_groups
from cat_seg.errors import UserError


class Model(nn.Module):
    """CLIP with a norm and a frozen layer, a head with a norm and an embedding."""

    def __init__(self):
        super().__init__()
        self.clip = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
        self.clip[2].requires_grad_(False)
        self.norm = nn.GroupNorm(1, 2)
        self.embedding = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 1)
        self.tied = self.head
        self.token = nn.Parameter(torch.ones(2))

    def clip_parameters(self):
        return self.clip.parameters()

    def forward(self):
        x = self.norm(self.clip(self.embedding.weight))
        return (self.head(x) * 100 + (x * self.token).sum()).sum()


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


@pytest.fixture
def solver(cfg):
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.CLIP_MULTIPLIER = 0.5
    cfg.SOLVER.WEIGHT_DECAY = 0.3
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.2
    return cfg.SOLVER


def test_each_parameter_has_its_rate_and_decay(cfg, solver, model):
    groups = parameter_groups(cfg, model)
    names = {id(p): name for name, p in model.named_parameters()}
    settings = {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }
    assert settings == {
        "clip.0.weight": (0.05, 0.3),
        "clip.0.bias": (0.05, 0.3),
        "clip.1.weight": (0.05, 0.2),
        "clip.1.bias": (0.05, 0.2),
        "norm.weight": (0.1, 0.2),
        "norm.bias": (0.1, 0.2),
        "embedding.weight": (0.1, 0.0),
        "head.weight": (0.1, 0.3),
        "head.bias": (0.1, 0.3),
        "token": (0.1, 0.3),
    }
    assert sum(len(group["params"]) for group in groups) == len(settings)


def test_groups_are_few_and_in_a_fixed_order(cfg, solver, model):
    one, other = (build_optimizer(cfg, m) for m in (model, copy.deepcopy(model)))
    assert isinstance(one, torch.optim.AdamW)
    assert len(one.param_groups) == 5
    shapes = [
        [[p.shape for p in group["params"]] for group in optimizer.param_groups]
        for optimizer in (one, other)
    ]
    assert shapes[0] == shapes[1]


def gradients(model):
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("scale", [None, 1024.0], ids=["plain", "scaled"])
def test_full_model_clipping_is_torchs_over_all_parameters(cfg, solver, model, scale):
    """Also after GradScaler, whose factor has to be gone before the norm is taken."""
    solver.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    expected = copy.deepcopy(model)
    expected().backward()
    norm = nn.utils.clip_grad_norm_(expected.parameters(), 0.01)
    assert norm > 1

    optimizer = build_optimizer(cfg, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    scaler.scale(model()).backward()
    scaler.step(optimizer)
    for ours, theirs in zip(gradients(model), gradients(expected), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("clip_type", ["value", "norm"])
def test_detectron2s_own_clipping_is_each_parameters(cfg, solver, model, clip_type):
    solver.CLIP_GRADIENTS.CLIP_TYPE = clip_type
    solver.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    optimizer = build_optimizer(cfg, model)
    model().backward()
    optimizer.step()
    largest = [g.abs().max() if clip_type == "value" else g.norm() for g in gradients(model)]
    assert max(largest) == pytest.approx(0.01, rel=1e-3)
    assert sum(size > 0.009 for size in largest) > 1


def test_no_clipping(cfg, solver, model):
    solver.CLIP_GRADIENTS.ENABLED = False
    optimizer = build_optimizer(cfg, model)
    model().backward()
    before = gradients(model)
    optimizer.step()
    for ours, theirs in zip(gradients(model), before, strict=True):
        assert torch.equal(ours, theirs)


def test_an_unknown_clip_type_is_refused(cfg, solver, model):
    solver.CLIP_GRADIENTS.CLIP_TYPE = "all"
    with pytest.raises(UserError, match=r"SOLVER\.CLIP_GRADIENTS\.CLIP_TYPE is 'all'"):
        build_optimizer(cfg, model)


@pytest.mark.parametrize("clip_type", ["full_model", "value", "norm"])
@pytest.mark.parametrize("name", ["ADAMW", "SGD"])
def test_a_clip_value_of_zero_clips_nothing(cfg, solver, model, name, clip_type):
    solver.OPTIMIZER = name
    solver.CLIP_GRADIENTS.CLIP_TYPE, solver.CLIP_GRADIENTS.CLIP_VALUE = clip_type, 0.0
    optimizer = build_optimizer(cfg, model)
    model().backward()
    before = gradients(model)
    optimizer.step()
    assert any(g.abs().max() > 1 for g in before)
    assert all(torch.equal(g, b) for g, b in zip(gradients(model), before, strict=True))


def test_sgd_is_torchs_with_momentum(cfg, solver, model):
    """Two steps, so that the momentum of the first counts in the second."""
    solver.OPTIMIZER, solver.MOMENTUM, solver.CLIP_GRADIENTS.CLIP_VALUE = "SGD", 0.8, 0.01
    other = copy.deepcopy(model)
    optimizer = build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.SGD)
    expected = torch.optim.SGD(parameter_groups(cfg, other), solver.BASE_LR, momentum=0.8)
    for _ in range(2):
        for net, steps in ((model, optimizer), (other, expected)):
            steps.zero_grad()
            net().backward()
            if net is other:
                nn.utils.clip_grad_norm_(other.parameters(), 0.01)
            steps.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_embeddings_decay_by_their_own_key(cfg, solver, model):
    solver.WEIGHT_DECAY_EMBED = 0.7
    [group] = [g for g in parameter_groups(cfg, model) if g["weight_decay"] == 0.7]
    assert [p.shape for p in group["params"]] == [model.embedding.weight.shape]


def test_an_unknown_optimizer_is_refused(cfg, model):
    cfg.SOLVER.OPTIMIZER = "ADAN"
    with pytest.raises(
        UserError, match=r"SOLVER\.OPTIMIZER is 'ADAN'; set it to one of ADAMW, SGD"
    ):
        build_optimizer(cfg, model)
