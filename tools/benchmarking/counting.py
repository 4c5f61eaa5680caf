"""Count what a training step asks of a GPU, without one: on the meta device, which has no values.

Shapes, types and operations are those of a GPU in float32, with attention as one operation. A value
that the host waits for would be an error, so a step that runs has no such wait.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tools.benchmarking.options import Options, build_config
from tools.benchmarking.workloads import Workload

ALLOCATION = 512  # bytes; PyTorch's CUDA allocator rounds up to multiples


class Counting(TorchDispatchMode):
    """Counts operations, tensors moved to the meta device, and bytes of the tensors alive there.

    Views and allocations are not counted: they launch nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.moved = self.live = self.peak = 0
        self._known: set[int] = set()

    def hold(self, tensors: Iterator[Tensor]) -> None:
        """Count the memory of `tensors` until they are freed."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if tensor.device.type == "meta" and key not in self._known:
                size = -(-storage.nbytes() // ALLOCATION) * ALLOCATION
                self._known.add(key)
                self.live += size
                weakref.finalize(storage, self._free, key, size)
        self.peak = max(self.peak, self.live)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given, results = list(_tensors((args, kwargs))), list(_tensors(out))
        self.hold(iter(results))
        name = func.overloadpacket.__name__
        own = {tensor.untyped_storage()._cdata for tensor in given}
        is_view = not func._schema.is_mutable and all(
            tensor.untyped_storage()._cdata in own for tensor in results
        )
        if not is_view and "empty" not in name and any(t.is_meta for t in results):
            self.operations += 1
            self.moved += name in ("_to_copy", "copy_") and not given[-1].is_meta
        return out


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))


def _attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """Return the result of the kernel that a GPU takes, for which meta tensors have formulas."""
    if attn_mask is not None:
        attn_mask = attn_mask.to(q.dtype).expand(*q.shape[:-1], k.shape[-2])
    attend: Callable[..., tuple[Tensor, ...]] = (
        torch.ops.aten._scaled_dot_product_efficient_attention
    )
    return attend(q, k, v, attn_mask, True, 0.0, is_causal)[0]


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    # The meta device has neither fused attention nor autocast, which float32 does not need.
    with (
        mock.patch.object(F, "scaled_dot_product_attention", _attention),
        mock.patch.object(torch, "autocast", lambda *_, **__: nullcontext()),
    ):
        yield


def run_count(options: Options, note: Callable[[str], None]) -> dict[str, Any]:
    """Count operations, transfers and memory of a training step's forward and backward pass.

    Raises:
        UserError: the config is invalid.
    """
    with TemporaryDirectory() as folder:
        cfg = build_config(options, Path(folder))
        note("building the model")
        workload = Workload(cfg, options)
    model = workload.model.to("meta")
    counting = Counting()
    with _as_on_a_gpu():
        model(workload.inputs)  # prepares the prompts, once
        counting.hold(iter([*model.parameters(), *model.buffers()]))
        before = counting.live
        with counting:
            sum(model(workload.inputs).values()).backward()
    return {
        "work": workload.described,
        "time": {},
        "counts": {"operations": counting.operations, "tensors moved": counting.moved},
        "memory": {"kind": "counted", "before": before, "peak": counting.peak},
    }
