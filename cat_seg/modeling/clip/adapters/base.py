"""Adapter interface: a function from frozen attention weights to effective ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from detectron2.config import CfgNode
from torch import nn

from cat_seg.errors import UserError, user_errors
from cat_seg.modeling.clip.transformer import AttentionWeights

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


class TowerWeights(NamedTuple):
    """Attention weights of both towers, one entry per block."""

    text: list[AttentionWeights]
    image: list[AttentionWeights]


class Adapter(nn.Module):
    """Identity adapter, and base class of all adapters.

    One adapter serves both towers, so it can share parameters between them. It returns the weights
    of a tower that it does not adapt unchanged.
    """

    def forward(self, frozen: TowerWeights) -> TowerWeights:
        """Return the effective weights."""
        return frozen


@contextmanager
def adapter_settings(settings: type[S], model: CfgNode, name: str) -> Iterator[S]:
    """Enter a context with an adapter's settings from its config section, MODEL.ADAPTER.<NAME>.

    A ValueError within the context whose message starts with the name of a field is reported as one
    of that config key; see `cat_seg.errors.user_errors`.

    Args:
        settings: a dataclass. Each field is a config key, with its name in upper case and the
            same default.
        model: MODEL section of a config.
        name: name of the section, in upper case.

    Raises:
        UserError: the section has a key that is not a field, or the type of a value differs from
            that of the field's default, or a value is refused within the context.
    """
    key = f"MODEL.ADAPTER.{name}"
    section = model.ADAPTER.get(name, CfgNode())
    fields = {field.name.upper(): field for field in dataclasses.fields(settings)}
    values: dict[str, Any] = {}
    for given, value in section.items():
        if given not in fields:
            raise UserError(f"{key}.{given} is not a config key; choose from {', '.join(fields)}")
        default = fields[given].default
        if isinstance(default, tuple) and type(value) is list:
            value = tuple(value)
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(default):
            raise UserError(f"{key}.{given} is {value!r}; set it to a value such as {default!r}")
        values[fields[given].name] = value
    with user_errors(**{field.name: f"{key}.{given}" for given, field in fields.items()}):
        yield settings(**values)
