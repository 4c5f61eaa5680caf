"""Reduce per-class probability maps to the answer a caller needs, a few classes at a time.

With 847 classes, the maps of a 1500 x 2000 image take 10 GB. Most callers need labels or per-pixel
scores only, which a running reduction computes in memory independent of the number of classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Reduction(Protocol):
    """Accumulates the probabilities of all classes of one image.

    Constructed with the number of classes T.
    """

    def add(self, maps: Tensor) -> None:
        """Take the probabilities (t, H, W) of the next t classes, in index order."""
        ...

    def result(self) -> Any:
        """Return the reduction of all T classes."""
        ...


Reducer = Callable[[int], Reduction]


class Winners(NamedTuple):
    """The most probable class of each pixel, both (H, W).

    Attributes:
        labels: int64, its index; like argmax, the first of equals. Arbitrary where there is NaN.
        confidence: its probability; NaN if any class's is.
    """

    labels: Tensor
    confidence: Tensor


class PixelScores(NamedTuple):
    """Label and confidence of each pixel, all (H, W).

    Attributes:
        labels, confidence: as in `Winners`; float32.
        margin: float32, `confidence` minus the second highest probability; `confidence` itself if
            there is only one class.
        entropy: float32 in 0..1, the entropy of the probabilities divided by their sum over the
            classes, relative to that of T equal ones. 0 for one class, 1 if all are zero.
    """

    labels: Tensor
    confidence: Tensor
    margin: Tensor
    entropy: Tensor


class Probabilities:
    """Keeps all maps; the result is (T, H, W)."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._parts: list[Tensor] = []
        self._whole: Tensor | None = None
        self._filled = 0

    def add(self, maps: Tensor) -> None:
        if torch.is_grad_enabled() or len(maps) == self._classes:
            self._parts.append(maps)
            return
        if self._whole is None:  # one allocation, where torch.cat would need the memory twice
            self._whole = maps.new_empty((self._classes, *maps.shape[1:]))
        self._whole[self._filled : self._filled + len(maps)] = maps
        self._filled += len(maps)

    def result(self) -> Tensor:
        if self._whole is not None:
            return self._whole
        return self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)


class Argmax:
    """Running argmax over classes; the result is `Winners`, exactly those of all maps at once."""

    _labels: Tensor
    _highest: Tensor

    def __init__(self, classes: int) -> None:
        self._seen = 0

    def add(self, maps: Tensor) -> None:
        highest, labels = _max(maps.detach())
        if self._seen:
            higher = highest > self._highest
            if len(maps) == 1:  # the usual case on a CPU, and cheaper than `where`
                self._labels.masked_fill_(higher, self._seen)
            else:
                self._labels = torch.where(higher, labels + self._seen, self._labels)
            torch.maximum(highest, self._highest, out=self._highest)  # keeps NaN
        else:
            self._labels, self._highest = labels.clone(), highest.clone()
        self._seen += len(maps)

    def result(self) -> Winners:
        return Winners(self._labels, self._highest)


def _max(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum (H, W) over the first dimension, and its index."""
    if len(maps) == 1:  # max(dim=0) is slow for a single map
        return maps[0], torch.zeros((), dtype=torch.int64, device=maps.device).expand(maps[0].shape)
    return maps.max(dim=0)


class Scores:
    """Labels with the confidence of each pixel; the result is `PixelScores`."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._argmax = Argmax(classes)
        self._others: tuple[Tensor, Tensor, Tensor] | None = None  # second, sum, sum of p log p

    def add(self, maps: Tensor) -> None:
        maps = maps.float()
        first, labels = _max(maps)
        if len(maps) > 1:
            second = maps.scatter(0, labels[None], -torch.inf).amax(dim=0)
        else:
            second = torch.full_like(first, -torch.inf)
        total, logs = maps.sum(dim=0), torch.xlogy(maps, maps).sum(dim=0)
        if self._others is not None:
            earlier_second, earlier_total, earlier_logs = self._others
            # The lower of the two maxima is second, unless one of the seconds is higher.
            lower = torch.minimum(first, self._argmax.result().confidence)
            second = torch.maximum(lower, torch.maximum(second, earlier_second))
            total, logs = total + earlier_total, logs + earlier_logs
        self._argmax.add(maps)
        self._others = second, total, logs

    def result(self) -> PixelScores:
        assert self._others is not None  # `add` was called
        labels, highest = self._argmax.result()
        if self._classes == 1:
            return PixelScores(labels, highest, highest, torch.zeros_like(highest))
        second, total, logs = self._others
        # With q = p / S: -sum(q log q) = log S - sum(p log p) / S
        entropy = (total.log() - logs / total) / math.log(self._classes)
        entropy = torch.where(total > 0, entropy.clamp(0, 1), 1.0)
        return PixelScores(labels, highest, highest - second, entropy)


class Groups:
    """Merges names into classes before another reduction: a class has its names' highest map."""

    def __init__(self, sizes: Sequence[int], reducer: Reducer) -> None:
        """Store the number of names of each class; the names of a class follow each other."""
        self._sizes = list(reversed(sizes))
        self._reduction = reducer(len(sizes))
        self._highest: Tensor | None = None  # of the class's names so far
        self._missing = self._sizes.pop()

    def add(self, maps: Tensor) -> None:
        while len(maps):
            part, maps = maps[: self._missing], maps[self._missing :]
            highest = part.amax(dim=0)  # keeps NaN, like maximum
            if self._highest is not None:
                highest = torch.maximum(highest, self._highest)
            self._highest = highest
            self._missing -= len(part)
            if self._missing == 0:
                self._reduction.add(highest[None])
                self._highest = None
                self._missing = self._sizes.pop() if self._sizes else 0

    def result(self) -> Any:
        return self._reduction.result()


def reduced(maps: Tensor, reducer: Reducer) -> Any:
    """Reduce the probabilities (T, H, W) of all classes at once."""
    reduction = reducer(len(maps))
    reduction.add(maps)
    return reduction.result()
