"""One training step, in full or mixed precision, on a whole batch or in micro-batches."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cat_seg.errors import UserError
from cat_seg.evaluation import raise_on_every_rank

Batch = list[dict[str, Any]]


def micro_batches(
    model: Any, batch: Batch, steps: int, autocast: torch.autocast
) -> Iterator[Batch]:
    """Split a training batch for gradient accumulation.

    Before drawing the next part, pass each one through `model` under `autocast` and back-propagate
    it. `model` may be distributed; processes then reduce their gradients with the last part.

    Args:
        model: a `TrainableSegmentor`, or its DistributedDataParallel.
        steps: number of equal parts.
    """
    if steps == 1:
        yield batch
        return
    size = len(batch) // steps
    parts = [batch[start : start + size] for start in range(0, len(batch), size)]
    distributed = isinstance(model, DistributedDataParallel)
    with ExitStack() as whole:
        with autocast:
            whole.enter_context((model.module if distributed else model).accumulated_batch(parts))
        for part in parts:
            local = distributed and part is not parts[-1]
            with model.no_sync() if local else nullcontext():
                yield part


class BatchError(UserError):
    """A batch could not be loaded; no process has done any of its step."""


class StepTrainer(SimpleTrainer):
    """detectron2's SimpleTrainer with mixed precision on any device and gradient accumulation.

    (detectron2's AMPTrainer needs CUDA.) The optimizer clips gradients in its own step, which
    GradScaler calls after it has unscaled them.
    """

    _data_loader_iter_obj: Any

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Batch],
        optimizer: torch.optim.Optimizer,
        *,
        device_type: str,
        amp_dtype: torch.dtype | None = None,
        accumulation_steps: int = 1,
    ) -> None:
        """Train `model`, which returns a dict of scalar losses, on batches of `data_loader`.

        Args:
            device_type: "cuda" or "cpu".
            amp_dtype: the dtype of autocast, or None for full precision. With float16, losses are
                scaled because its range is narrow.
            accumulation_steps: number of equal micro-batches that each batch is split into; the
                gradient of a step is the mean of theirs.
        """
        super().__init__(model, data_loader, optimizer)
        self.autocast = torch.autocast(device_type, dtype=amp_dtype, enabled=amp_dtype is not None)
        self._amp_dtype = amp_dtype
        self.grad_scaler = torch.amp.GradScaler(device_type, enabled=amp_dtype == torch.float16)
        self._accumulation_steps = accumulation_steps

    def run_step(self) -> None:
        """Draw a batch, back-propagate the sum of its losses, and take one optimizer step.

        Raises:
            BatchError: a batch could not be loaded; raised in all processes.
            UserError: a loss or a gradient is not finite; the weights are unchanged.
        """
        start = time.perf_counter()
        batch = self._next_batch()
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad()
        losses = self._back_propagate(batch)
        self.after_backward()
        self._write_metrics(losses, data_time)
        self._check_gradients()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _next_batch(self) -> Batch:
        try:
            return raise_on_every_rank(lambda: next(self._data_loader_iter))
        except UserError as error:
            raise BatchError(str(error)) from error

    def _write_metrics(self, losses: dict[str, Tensor], data_time: float) -> None:
        try:
            self.write_metrics(losses, data_time, self.iter)
        except FloatingPointError:  # on rank 0, for the means over all processes
            wrong = [
                f"{name} is {loss:.3g}" for name, loss in losses.items() if not math.isfinite(loss)
            ]
            what = ", ".join(wrong) or "a loss of another process is not finite"
            raise self._diverged(what) from None

    def _check_gradients(self) -> None:
        """Refuse gradients that would make the weights NaN; GradScaler skips those steps itself."""
        if self.grad_scaler.is_enabled():
            return
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        try:
            # With an infinite limit, clipping multiplies by 1.
            nn.utils.clip_grad_norm_(trained, math.inf, math.inf, error_if_nonfinite=True)
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            raise self._diverged("a gradient is not finite") from None

    def _diverged(self, what: str) -> UserError:
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        advice = "lower SOLVER.BASE_LR or SOLVER.CLIP_GRADIENTS.CLIP_VALUE"
        if self._amp_dtype == torch.float16:
            advice += ", or set SOLVER.AMP.DTYPE bfloat16"
        elif self._amp_dtype is not None:
            advice += ", or set SOLVER.AMP.ENABLED False"
        return UserError(
            f"training diverged in iteration {self.iter} at learning rate {rate:.3g}: "
            f"{what}; {advice}"
        )

    def _back_propagate(self, batch: Batch) -> dict[str, Tensor]:
        """Add up the gradients of all micro-batches; return the mean of each loss."""
        means: Any = Counter()  # of tensors; typeshed knows counts of int only
        steps = self._accumulation_steps
        for part in micro_batches(self.model, batch, steps, self.autocast):
            means.update(self._add_gradients(part, steps))
        return dict(means)

    def _add_gradients(self, part: Batch, parts: int) -> dict[str, Tensor]:
        """Run one of `parts` micro-batches forward and backward; return its losses / `parts`."""
        with self.autocast:
            losses = {name: loss / parts for name, loss in self.model(part).items()}
        self.grad_scaler.scale(sum(losses.values())).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def end_loading(self) -> None:
        """End the data workers; another step starts new ones."""
        if self._data_loader_iter_obj is not None:
            self._data_loader_iter_obj.close()
        self._data_loader_iter_obj = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer and the loss scale."""
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a `state_dict`; it has no loss scale if the run did not use AMP before."""
        super().load_state_dict(state_dict)
        if state_dict["grad_scaler"]:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
