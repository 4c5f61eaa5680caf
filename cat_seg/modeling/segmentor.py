"""Interface between segmentation models and the code that trains, evaluates and applies them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import nn

from cat_seg.modeling.reduction import Reducer


class Segmentor(Protocol):
    """An nn.Module that segments images into named classes: what evaluation and predictor need."""

    training: bool

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Class names of the current mode: those trained on, or those predicted in evaluation."""
        ...

    def set_vocabulary(self, names: Sequence[str]) -> None:
        """Set the classes to predict in evaluation."""
        ...

    def segment(self, batched_inputs: list[dict[str, Any]], reducer: Reducer = ...) -> list[Any]:
        """Segment images and reduce their probabilities; see `CATSeg.segment`.

        It goes through the module's `__call__`, so that forward hooks run.
        """
        ...


class TrainableSegmentor(Segmentor, Protocol):
    """A Segmentor that the trainer can train, such as CATSeg.

    Called on a batch in training mode, it returns the weighted losses by name.
    """

    def accumulated_batch(
        self, parts: Sequence[list[dict[str, Any]]]
    ) -> AbstractContextManager[None]:
        """Return a context in which the parts of one training batch are forwarded one by one."""
        ...

    def clip_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters whose learning rate SOLVER.CLIP_MULTIPLIER scales."""
        ...
