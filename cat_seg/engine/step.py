"""One training step, in full or mixed precision, on a whole batch or in micro-batches."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
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

    A step waits for the GPU once, when it reads the losses at its end, and with float16 for the
    loss scale. Processes exchange the losses and `flag` in one message.

    Attributes:
        agreed: the largest `flag` of all processes in the last step.
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
        flag: Callable[[], int] = int,
    ) -> None:
        """Train `model`, which returns a dict of scalar losses, on batches of `data_loader`.

        Args:
            device_type: "cuda" or "cpu".
            amp_dtype: the dtype of autocast, or None for full precision. With float16, losses are
                scaled because its range is narrow.
            accumulation_steps: number of equal micro-batches that each batch is split into; the
                gradient of a step is the mean of theirs.
            flag: called at the end of each step; what this process has to tell the others.
        """
        super().__init__(model, data_loader, optimizer)
        self._flag = flag
        self.agreed = 0
        self.autocast = torch.autocast(device_type, dtype=amp_dtype, enabled=amp_dtype is not None)
        self._amp_dtype = amp_dtype
        self.grad_scaler = torch.amp.GradScaler(device_type, enabled=amp_dtype == torch.float16)
        self._accumulation_steps = accumulation_steps

    def run_step(self) -> None:
        """Draw a batch, back-propagate the sum of its losses, and take one optimizer step.

        Raises:
            BatchError: a batch could not be loaded; raised in all processes.
            UserError: a loss or a gradient is not finite, in all processes. The weights may be
                unusable then.
        """
        start = time.perf_counter()
        batch = self._next_batch()
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad()
        losses = self._back_propagate(batch)
        self.after_backward()
        norm = self._largest_gradient()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self._exchange(losses, norm, data_time)

    def _next_batch(self) -> Batch:
        try:
            return raise_on_every_rank(lambda: next(self._data_loader_iter))
        except UserError as error:
            raise BatchError(str(error)) from error

    def _largest_gradient(self) -> Tensor:
        """Return the largest entry of all gradients; 0 with GradScaler, which skips bad steps."""
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.grad_scaler.is_enabled():
            return trained[0].new_zeros(())
        gradients = [p.grad for p in trained if p.grad is not None]
        return nn.utils.get_total_norm(gradients, math.inf)

    def _exchange(self, losses: dict[str, Tensor], norm: Tensor, data_time: float) -> None:
        """Write the metrics, agree on the flag, and check that losses and gradients are finite.

        The metrics are detectron2's: means over the processes, and the longest wait for data.
        """
        *own, largest = torch.stack([*losses.values(), norm]).float().tolist()
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", data_time, cur_iter=self.iter)
        everyone = comm.all_gather((own, data_time, self._flag()))
        values, waits, flags = zip(*everyone, strict=True)
        self.agreed = max(flags)
        means = dict(zip(losses, np.mean(values, axis=0), strict=True))
        total = sum(means.values())
        if not math.isfinite(total):
            first = zip(losses, values[0], strict=True)  # of rank 0, in all processes
            wrong = [f"{name} is {loss:.3g}" for name, loss in first if not math.isfinite(loss)]
            what = ", ".join(wrong) or "a loss of another process is not finite"
            raise self._diverged(what)
        if not math.isfinite(largest):
            raise self._diverged("a gradient is not finite")
        if comm.is_main_process():
            storage.put_scalar("data_time", max(waits), cur_iter=self.iter)
            storage.put_scalar("total_loss", total, cur_iter=self.iter)
            if len(means) > 1:
                storage.put_scalars(cur_iter=self.iter, **means)

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
