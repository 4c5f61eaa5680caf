"""One training step, in full or in mixed precision, at once or in micro-batches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Batch = list[dict[str, Any]]


def micro_batches(
    model: nn.Module, batch: Batch, steps: int, autocast: torch.autocast
) -> Iterator[Batch]:
    """Split a training batch for gradient accumulation.

    Each part is to be forwarded through `model`, which may be distributed, under `autocast`, and
    back-propagated before the next is drawn. Processes sum up their gradients with the last.

    Args:
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
            whole.enter_context((model.module if distributed else model).joint_batch(parts))
        for part in parts:
            local = distributed and part is not parts[-1]
            with model.no_sync() if local else nullcontext():
                yield part


class StepTrainer(SimpleTrainer):
    """detectron2's SimpleTrainer with mixed precision on any device and gradient accumulation.

    (detectron2's AMPTrainer needs CUDA.) The optimiser clips gradients in its own step, which
    GradScaler calls after it has unscaled them.
    """

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
            amp_dtype: what autocast computes in, None for full precision; float16, whose range is
                narrow, has its losses scaled.
            accumulation_steps: equal micro-batches that each batch is split into; the gradient of
                a step is the mean of theirs.
        """
        super().__init__(model, data_loader, optimizer)
        self._autocast = torch.autocast(device_type, dtype=amp_dtype, enabled=amp_dtype is not None)
        self.grad_scaler = torch.amp.GradScaler(device_type, enabled=amp_dtype == torch.float16)
        self._accumulation_steps = accumulation_steps

    def run_step(self) -> None:
        """Draw a batch, back-propagate the sum of its losses, and take one optimiser step."""
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad()
        losses = self._back_propagate(batch)
        self.after_backward()
        self._write_metrics(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _back_propagate(self, batch: Batch) -> dict[str, Tensor]:
        """Add the gradients of all micro-batches; returns the mean of each of their losses."""
        means: Counter[str] = Counter()
        steps = self._accumulation_steps
        for part in micro_batches(self.model, batch, steps, self._autocast):
            means.update(self._add_gradients(part, steps))
        return dict(means)

    def _add_gradients(self, part: Batch, parts: int) -> dict[str, Tensor]:
        """Forward and backward of one of so many parts; returns its share of the mean losses."""
        with self._autocast:
            losses = {name: loss / parts for name, loss in self.model(part).items()}
        self.grad_scaler.scale(sum(losses.values())).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def end_loading(self) -> None:
        """End the workers that load data; another step starts new ones."""
        self._data_loader_iter_obj = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimiser and of the loss scale."""
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` returned; a run that starts to use AMP has no scale yet."""
        super().load_state_dict(state_dict)
        if state_dict["grad_scaler"]:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
