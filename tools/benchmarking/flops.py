"""Count floating-point operations; a multiply-add counts as two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

aten = torch.ops.aten
Shape = Sequence[int]


class FlopCounter(TorchDispatchMode):
    """Counter of the FLOPs of matrix products, convolutions, attention and linear solves.

    Element-wise operations, norms and reductions are not counted, because they are bound by memory
    rather than arithmetic. The formulas are those of PyTorch's FlopCounterMode. That class is not
    used because it also tracks modules, and fails if a module receives a parameter as input
    without gradients.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def product_flops(side: int) -> int:
    """Return the operations of a product of two square matrices."""
    return 2 * side**3


def _solve(matrix: Shape, right: Shape, *args: Any, **kwargs: Any) -> int:
    side = matrix[-1]
    return _batch(matrix) * (2 * side**3 // 3 + 2 * side**2 * right[-1])


def _lu_solve(factors: Shape, pivots: Shape, right: Shape, *args: Any, **kwargs: Any) -> int:
    return _batch(factors) * 2 * factors[-1] ** 2 * right[-1]


def _inverse(matrix: Shape, *args: Any, **kwargs: Any) -> int:
    return _batch(matrix) * 2 * matrix[-1] ** 3


def _batch(shape: Shape) -> int:
    return torch.Size(shape[:-2]).numel()


def _attention(query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# Operations for which some PyTorch releases have no formula.
_FORMULAS: dict[Any, Callable[..., int]] = {
    aten._linalg_solve_ex: _solve,
    aten.linalg_lu_solve: _lu_solve,
    aten.linalg_inv_ex: _inverse,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
for _operation, _formula in _FORMULAS.items():
    if _operation not in flop_registry:
        register_flop_formula(_operation)(_formula)
