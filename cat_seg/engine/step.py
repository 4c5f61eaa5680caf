"""One training step, in full or in mixed precision, on CUDA or CPU."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import nn

# float16 needs its losses scaled, bfloat16 has float32's range; CPUs compute well in the latter.
AMP_DTYPES = {"cuda": torch.float16, "cpu": torch.bfloat16}


class StepTrainer(SimpleTrainer):
    """detectron2's SimpleTrainer with automatic mixed precision on either device.

    (detectron2's AMPTrainer needs CUDA.) The optimiser clips gradients in its own step, which
    GradScaler calls after it has unscaled them.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
        *,
        device_type: str,
        amp: bool,
    ) -> None:
        """Train `model`, which returns a dict of scalar losses, on batches of `data_loader`.

        Args:
            device_type: "cuda" or "cpu".
            amp: compute in float16 with scaled losses on CUDA, in bfloat16 on a CPU.
        """
        super().__init__(model, data_loader, optimizer)
        self._autocast = torch.autocast(device_type, dtype=AMP_DTYPES.get(device_type), enabled=amp)
        self.grad_scaler = torch.amp.GradScaler(
            device_type, enabled=amp and AMP_DTYPES.get(device_type) == torch.float16
        )

    def run_step(self) -> None:
        """Draw a batch, back-propagate the sum of its losses, and take one optimiser step."""
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        with self._autocast:
            losses = self.model(batch)
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        self.after_backward()
        self._write_metrics(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

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
