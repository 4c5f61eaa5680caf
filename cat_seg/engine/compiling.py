"""torch.compile for the parts of a model that gain by it."""

from __future__ import annotations

from torch import nn


def compile_aggregator(model: nn.Module, backend: str = "inductor") -> None:
    """Compile the aggregator of a model, in place: parameters keep their names.

    It has most of the small element-wise work, which compilation fuses, and is one graph. It is
    compiled at its first call, which takes minutes, once more when the number of classes or images
    changes, and then for any number.

    Args:
        model: with `sem_seg_head.aggregator`.
        backend: of torch.compile.
    """
    model.sem_seg_head.aggregator.compile(backend=backend)
