"""NumPy arrays and scalars in PyTorch files, rebuilt without NumPy's own unpickling.

PyTorch's safe reader only knows tensors. The stand-ins here replace NumPy's types and functions
during reading. They use only the number type, byte order, memory order and shape of an array, and
ignore anything else that a pickled numpy.dtype could specify.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

_NUMBERS = re.compile(r"[biufc]\d+")
_BYTE_ORDERS = "<>=|"


class StoredType:
    """Stand-in for numpy.dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        self._code = code if _NUMBERS.fullmatch(str(code)) else None
        self._order: Literal["<", ">", "=", "|"] = "="

    def __setstate__(self, state: tuple) -> None:
        if state[1] in _BYTE_ORDERS:
            self._order = state[1]

    def numbers(self, raw: bytes) -> np.ndarray | None:
        """Decode `raw` into native byte order; return None for strings and objects."""
        if self._code is None or not isinstance(raw, bytes):
            return None
        stored = np.dtype(self._code).newbyteorder(self._order)
        return np.frombuffer(raw, stored).astype(stored.newbyteorder("="))


class StoredArray:
    """Stand-in for numpy.ndarray; `value` is None unless the array is numeric."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, by_columns, raw = state
        numbers = dtype.numbers(raw)
        if numbers is not None:
            self.value = numbers.reshape(shape, order="F" if by_columns else "C")


def _reconstruct(*_: Any) -> StoredArray:
    return _ARRAY()


def _scalar(dtype: StoredType, raw: bytes) -> bool | int | float | complex | None:
    numbers = dtype.numbers(raw)
    return None if numbers is None else numbers[0].item()


def _no_bytes() -> bytes:
    """Stand-in for bytes(), which pickles use for an empty array.

    It takes no argument, because bytes(n) could allocate any amount of memory.
    """
    return b""


def _under(module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function under the module and name that files refer to."""

    def stand_in(*args: Any) -> Any:
        return function(*args)

    stand_in.__module__, stand_in.__qualname__, stand_in.__name__ = module, name, name
    return stand_in


def _class_under(name: str, base: type) -> type:
    return type(name, (base,), {"__module__": "numpy", "__qualname__": name})


_ARRAY = _class_under("ndarray", StoredArray)

# For torch.serialization.safe_globals. NumPy 1 and 2 name the functions differently.
STAND_INS: list[Any] = [
    _class_under("dtype", StoredType),
    _ARRAY,
    _under("builtins", "bytes", _no_bytes),
    *(
        _under(module, name, function)
        for module in ("numpy._core.multiarray", "numpy.core.multiarray")
        for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    ),
]
