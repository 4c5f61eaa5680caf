"""Hook that records the mechanism of training: gradients by loss, AFR's gates, HPA's prototypes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.evaluation import inference_context
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from cat_seg.analysis.gradients import ALL, measure_gradients, trained_parts
from cat_seg.analysis.hyperspherical import (
    measure_alignment,
    measure_geometry,
    measure_rectification,
)
from cat_seg.data import training_samples
from cat_seg.data.build import images_per_process
from cat_seg.utils.rng import rng_state, set_rng_state

Batch = Sequence[Mapping[str, Any]]

# Micro-batches on which AFR and HPA are measured; gradients are measured on the first.
BATCHES = 8
GRADIENT, UPDATE, AFR, HPA = "gradient/", "update/", "afr/", "hpa/"  # of metric names


def diagnostics_loggers(
    cfg: CfgNode, model: nn.Module, autocast: AbstractContextManager, scaler: torch.amp.GradScaler
) -> list[HookBase]:
    """Return the hook for SOLVER.DIAGNOSTICS_PERIOD in a list, or [] if it is not positive.

    Args:
        cfg: the full config.
        model: the model, possibly in DistributedDataParallel.
        autocast, scaler: as in the training step.
    """
    period = cfg.SOLVER.DIAGNOSTICS_PERIOD
    return [DiagnosticsLogger(cfg, model, autocast, scaler)] if period > 0 else []


class DiagnosticsLogger(HookBase):
    """Hook that measures gradients, updates, AFR and HPA on the first samples of the run.

    It measures before the first iteration, after every `period` iterations, and after the last,
    and the update in the iteration that follows. The samples never change, so that only the model
    does. All processes measure the same samples, since HPA sums over processes; a run with it gives
    the same weights as one without.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        autocast: AbstractContextManager,
        scaler: torch.amp.GradScaler,
    ) -> None:
        """Prepare to measure; see `diagnostics_loggers`."""
        self._cfg = cfg
        self._model: Any = getattr(model, "module", model)
        self._autocast = autocast
        self._scaler = scaler
        self._batches: list[Batch] = []
        self._before: dict[str, list[Tensor]] | None = None

    def before_train(self) -> None:
        """Read the samples.

        Raises:
            UserError: a file is unreadable or invalid.
        """
        steps = self._cfg.SOLVER.ACCUMULATION_STEPS
        size = images_per_process(self._cfg, comm.get_world_size()) // steps
        samples = training_samples(self._cfg, self.trainer.seed, BATCHES * size)
        self._batches = [samples[start : start + size] for start in range(0, len(samples), size)]

    def before_step(self) -> None:
        self._before = None
        if self.trainer.iter % self._cfg.SOLVER.DIAGNOSTICS_PERIOD == 0:
            self._measure(self.trainer.iter)
            parts = trained_parts(self._model)
            self._before = {
                part: [parameter.detach().clone() for parameter in parameters]
                for part, parameters in parts.items()
            }

    def after_step(self) -> None:
        if self._before is not None:
            self._record(UPDATE, relative_updates(self._model, self._before), self.trainer.iter)
            self._before = None

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # training did not end early
            self._measure(self.trainer.max_iter)

    def _measure(self, iteration: int) -> None:
        model, scale = self._model, self._scaler.get_scale()
        with unchanged(model), torch.compiler.set_stance("force_eager"), EventStorage(iteration):
            gradients = measure_gradients(model, self._batches[0], self._autocast, scale)
        self._record(GRADIENT, gradients, iteration)
        with inference_context(model), torch.no_grad(), self._autocast:
            self._measure_features(iteration)

    def _measure_features(self, iteration: int) -> None:
        afr, hpa = (getattr(self._model, name, None) for name in ("afr", "hpa"))
        if afr is None and hpa is None:
            return
        features, labeled = [], []
        for batch in self._batches:
            images, labels = self._model.training_inputs(batch)
            guidance = self._model.guidance(images)
            features.append(guidance.res3)
            labeled.append((self._model.rectify_guidance(guidance)[0].res3, labels))
        if afr is not None:
            self._record(AFR, measure_rectification(afr, features), iteration)
        if hpa is not None:
            names = self._model.train_classes
            self._record(HPA, measure_alignment(hpa, names, labeled), iteration)
            self._record(HPA, measure_geometry(hpa), iteration)

    def _record(self, prefix: str, metrics: Mapping[str, float], iteration: int) -> None:
        for name, value in metrics.items():
            self.trainer.storage.put_scalar(
                prefix + name, value, smoothing_hint=False, cur_iter=iteration
            )


def relative_updates(model: nn.Module, before: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
    """Return |change| / |before| of the trained parameters, by part and for all.

    Args:
        model: the model after the change.
        before: copies of `trained_parts` of the model before it.
    """
    changes = {
        part: [parameter.detach() - old for parameter, old in zip(own, before[part], strict=True)]
        for part, own in trained_parts(model).items()
    }
    norm = nn.utils.get_total_norm
    parts = {part: (norm(changes[part]), norm(old)) for part, old in before.items()}
    totals = torch.stack([torch.stack(pair) for pair in parts.values()])
    parts[ALL] = tuple(torch.linalg.vector_norm(totals, dim=0))
    return {part: float(change / length) for part, (change, length) in parts.items() if length > 0}


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore the model's buffers and all random generators after the context.

    Within it, random numbers are always the same, so that two measurements of a model agree.
    """
    random = rng_state()
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    torch.manual_seed(0)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        set_rng_state(random)
