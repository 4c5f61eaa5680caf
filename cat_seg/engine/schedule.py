"""The learning rate over a training run."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from detectron2.solver import build_lr_scheduler as build_detectron2_scheduler
from fvcore.common.param_scheduler import ParamScheduler

from cat_seg.configuration.checks import check_choice
from cat_seg.errors import UserError

POLY = "WarmupPolyLR"


def build_lr_scheduler(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Build the scheduler that SOLVER.LR_SCHEDULER_NAME names.

    Args:
        cfg: reads MAX_ITER, WARMUP_* and the schedule's own keys in SOLVER.
        optimizer: the optimizer whose learning rates are scaled.

    Raises:
        UserError: SOLVER.LR_SCHEDULER_NAME or SOLVER.WARMUP_METHOD is unknown, or the values do
            not make a valid schedule.
    """
    solver = cfg.SOLVER
    for key in ("SOLVER.LR_SCHEDULER_NAME", "SOLVER.WARMUP_METHOD"):
        check_choice(cfg, key)
    if solver.LR_SCHEDULER_NAME != POLY:
        try:
            return build_detectron2_scheduler(cfg, optimizer)
        except (ValueError, AssertionError) as error:
            raise UserError(
                f"SOLVER.LR_SCHEDULER_NAME {solver.LR_SCHEDULER_NAME} does not work with the "
                f"other SOLVER keys (MAX_ITER, STEPS, NUM_DECAYS, WARMUP_ITERS): {error}"
            ) from error
    multiplier = WarmupPoly(
        max_iter=solver.MAX_ITER,
        power=solver.POLY_LR_POWER,
        ending=solver.POLY_LR_CONSTANT_ENDING,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_factor=solver.WARMUP_FACTOR,
        warmup_method=solver.WARMUP_METHOD,
    )
    return LRMultiplier(optimizer, multiplier, solver.MAX_ITER)


class WarmupPoly(ParamScheduler):
    """DeepLab's polynomial decay, (1 - iteration / max_iter) ** power, times a warm-up factor.

    The values are those of WarmupPolyLR in detectron2's DeepLab project. That scheduler stores its
    whole configuration in checkpoints. This one, like detectron2's other schedules, stores none,
    so that a resumed run can have a different MAX_ITER.
    """

    def __init__(
        self,
        max_iter: int,
        power: float,
        ending: float,
        warmup_iters: int,
        warmup_factor: float,
        warmup_method: str,
    ) -> None:
        """Decay over `max_iter` iterations, but after the warm-up never below `ending`.

        Args:
            warmup_method: "linear" rises from `warmup_factor` to 1 over `warmup_iters`,
                "constant" stays at `warmup_factor` until then.
        """
        self._max_iter = max_iter
        self._power = power
        self._ending = ending
        self._warmup_iters = warmup_iters
        self._warmup_factor = warmup_factor
        self._linear = warmup_method == "linear"

    def __call__(self, where: float) -> float:
        """Return the multiplier after a fraction `where` (0 to 1) of the run."""
        iteration = round(where * self._max_iter)
        decayed = max(1 - iteration / self._max_iter, 0) ** self._power
        reached = 1.0
        if iteration < self._warmup_iters:
            reached = iteration / self._warmup_iters if self._linear else 0.0
        warmup = self._warmup_factor * (1 - reached) + reached
        return max(decayed, self._ending) if warmup == 1 else warmup * decayed
