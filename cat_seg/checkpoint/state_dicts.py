"""Finding a model's tensors in checkpoints of other training programs.

Programs nest the state dict under various names, save an exponential moving average (EMA) beside
the weights, and leave wrapper prefixes on the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cat_seg.checkpoint.stored_arrays import StoredArray
from cat_seg.errors import UserError

# Names under which programs store a model's weights, in order of preference.
_CONTAINERS = (
    "model",
    "state_dict",
    "model_state_dict",
    "model_state",
    "module",
    "network",
    "net",
    "weights",
    "params",
    "state",
    "shadow",
    "shadow_params",
)
# model_ema, ema_state, state_dict_ema, modelEMA, averaged_model, swa_model and the like.
_AVERAGED = re.compile(
    r"(?<![a-zA-Z])(ema|EMA|averaged|swa)(?![a-zA-Z])|(?<=[a-z])E(MA|ma)(?![a-z])"
)
# Counters that averaging stores beside the weights.
_COUNTERS = {"n_averaged", "num_updates", "updates", "decay", "step", "steps", "initted"}
_OUTER = re.compile(r"^(?:(?:module|model|network|net)\.)+")
_ANYWHERE = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_DEEPEST = 4


class Weights(NamedTuple):
    """A model's tensors.

    tensors: by name, without wrapper prefixes.
    averaged: whether they are a moving average.
    both: whether the file has both the weights and their average.
    """

    tensors: dict[str, Tensor]
    averaged: bool
    both: bool


def find_weights(content: Mapping[str, Any], averaged: bool) -> Weights | None:
    """Find a model's weights in the content of a checkpoint.

    Args:
        content: the content of the file.
        averaged: take the moving average if the file has both kinds.

    Returns:
        The weights, or None if there are none. If the file has only one kind, `averaged` is
        ignored.

    Raises:
        UserError: two entries have the same name without wrapper prefixes.
    """
    plain, moving = _plain(content), _moving(content)
    inner = {name: rest for name in plain if (rest := _below_average(name))}
    if inner:
        moving = moving or {rest: plain[name] for name, rest in inner.items()}
        plain = {name: tensor for name, tensor in plain.items() if name not in inner}
    moving = {name: tensor for name, tensor in moving.items() if name not in _COUNTERS}
    if not plain and not moving:
        return None
    take_moving = bool(moving) and (averaged or not plain)
    chosen = moving if take_moving else plain
    return Weights(_unwrapped(chosen), take_moving, bool(plain) and bool(moving))


def _plain(content: Mapping[str, Any]) -> dict[str, Tensor]:
    for key in _CONTAINERS:
        if found := _tensors(content.get(key)):
            return found
    return _own(content)


def _moving(content: Mapping[str, Any]) -> dict[str, Tensor]:
    for key, value in content.items():
        if isinstance(key, str) and _AVERAGED.search(key) and (found := _tensors(value)):
            return found
    return {}


def _below_average(name: str) -> str:
    """Return the part after an average's prefix, as in "model_ema.head.weight", or ""."""
    first, _, rest = _OUTER.sub("", _ANYWHERE.sub("", name)).partition(".")
    return rest if _AVERAGED.search(first) else ""


def _tensors(value: Any, depth: int = 0) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or of one nested in it."""
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return {}
    own = _own(value)
    if any(tensor.ndim for tensor in own.values()):
        return own
    for key in (*_CONTAINERS, *(k for k in value if isinstance(k, str) and _AVERAGED.search(k))):
        if found := _tensors(value.get(key), depth + 1):
            return found
    return own


def _own(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors that are direct entries, converting NumPy arrays."""
    found = {}
    for name, value in content.items():
        if isinstance(value, StoredArray) and value.value is not None:
            value = torch.from_numpy(value.value)
        if isinstance(name, str) and isinstance(value, Tensor):
            found[name] = value
    return found


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for name, tensor in tensors.items():
        short = _OUTER.sub("", _ANYWHERE.sub("", name))
        if short in found:
            raise UserError(
                f"contains {short} twice, as {names[short]} and {name}; remove one of them"
            )
        found[short], names[short] = tensor, name
    return found
