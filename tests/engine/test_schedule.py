"""Learning rates over a run."""

from __future__ import annotations

import pytest
import torch
from detectron2.projects.deeplab.lr_scheduler import WarmupPolyLR

from cat_seg.engine import load_config
from cat_seg.engine.schedule import build_lr_scheduler
from cat_seg.errors import UserError

RATES = (0.1, 0.001)


def optimizer() -> torch.optim.Optimizer:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in RATES]
    groups = [{"params": [p], "lr": r} for p, r in zip(parameters, RATES, strict=True)]
    return torch.optim.SGD(groups, 0.1)


def rates(scheduler, steps: int) -> list[list[float]]:
    found = []
    for _ in range(steps + 1):
        found.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.fixture
def solver(cfg):
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    cfg.SOLVER.MAX_ITER = 30
    return cfg.SOLVER


def test_polynomial_decay(cfg, solver):
    solver.WARMUP_ITERS, solver.WARMUP_FACTOR, solver.POLY_LR_POWER = 0, 1.0, 0.9
    for iteration, found in enumerate(rates(build_lr_scheduler(cfg, optimizer()), 30)):
        assert found == pytest.approx([rate * (1 - iteration / 30) ** 0.9 for rate in RATES])


@pytest.mark.parametrize(
    ("warmup_iters", "factor", "method", "ending"),
    [
        (0, 1.0, "linear", 0.0),
        (7, 0.01, "linear", 0.0),
        (7, 0.01, "constant", 0.3),
        (0, 1.0, "linear", 0.25),
        (29, 1.0, "constant", 0.6),
        (40, 0.5, "linear", 0.9),
    ],
)
def test_it_is_deeplabs(cfg, solver, warmup_iters, factor, method, ending):
    solver.WARMUP_ITERS, solver.WARMUP_FACTOR, solver.WARMUP_METHOD = warmup_iters, factor, method
    solver.POLY_LR_POWER, solver.POLY_LR_CONSTANT_ENDING = 1.7, ending
    theirs = WarmupPolyLR(optimizer(), 30, factor, warmup_iters, method, -1, 1.7, ending)
    found = rates(build_lr_scheduler(cfg, optimizer()), 29)
    assert found == [pytest.approx(expected) for expected in rates(theirs, 29)]


def test_what_a_checkpoint_keeps_does_not_fix_the_length_of_the_run(cfg, solver):
    solver.WARMUP_ITERS = 0
    first = build_lr_scheduler(cfg, optimizer())
    rates(first, 9)
    solver.MAX_ITER = 100
    second = build_lr_scheduler(cfg, optimizer())
    second.load_state_dict(first.state_dict())
    second.optimizer.step()
    second.step()
    assert second.get_last_lr()[0] == pytest.approx(0.1 * (1 - 11 / 100) ** 0.9)


@pytest.mark.parametrize("key", ["LR_SCHEDULER_NAME", "WARMUP_METHOD"])
def test_an_unknown_name_is_refused(cfg, key):
    cfg.SOLVER[key] = "Foo"
    with pytest.raises(UserError, match=f"SOLVER.{key} is 'Foo'; set it to one of"):
        build_lr_scheduler(cfg, optimizer())


def test_the_learning_rates_are_those_of_the_published_log():
    """HyperCLIP's metrics.json; it counts iterations from 0."""
    cfg = load_config("configs/vitb_384_hyperbolic.yaml", [])
    base = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], cfg.SOLVER.BASE_LR)
    found = rates(build_lr_scheduler(cfg, base), 30)
    assert found[19] == pytest.approx([0.00019999997216463264], rel=1e-12)
    assert found[30] == pytest.approx([0.0001999999306043521], rel=1e-12)
