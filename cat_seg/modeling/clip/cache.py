"""Cache for results computed from parameters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

R = TypeVar("R")


class ParameterCache(Generic[R]):
    """Cache of the last result, valid until the request or a parameter it depends on changes.

    Nothing is cached when autograd needs the computation.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop the cached result."""
        self._key: Hashable | None = None
        self._result: R | None = None

    def get(self, request: Hashable, parameters: Iterable[Tensor], compute: Callable[[], R]) -> R:
        """Return compute(), or the cached result if neither request nor parameters have changed.

        Args:
            request: everything other than the parameters that the result depends on.
            parameters: every tensor that compute() reads. In-place changes are detected through
                the tensor's version counter, replacements through its address.
            compute: computes the result.
        """
        parameters = list(parameters)
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            return compute()
        device = parameters[0].device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        state = tuple((p.data_ptr(), p._version) for p in parameters)
        key = (request, state, autocast, torch.is_inference_mode_enabled())
        if key != self._key:
            self._result, self._key = compute(), key
        return cast(R, self._result)  # None only if R allows it
