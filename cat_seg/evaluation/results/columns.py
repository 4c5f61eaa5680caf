"""The columns of results tables: single benchmarks, and means over the datasets of MESS."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from statistics import fmean
from typing import NamedTuple

from cat_seg.data import BENCHMARKS
from cat_seg.data.mess import DOMAINS, MESS_DATASETS, MessDataset


class Column(NamedTuple):
    """A column of a results table.

    sources: the benchmark labels that the column needs. It is the mean over the tuples, each of
        which stands for the mean over its labels.
    """

    heading: str
    sources: tuple[tuple[str, ...], ...]

    @property
    def labels(self) -> list[str]:
        """The needed benchmark labels, in order."""
        return [label for source in self.sources for label in source]

    def value(self, values: Mapping[str, float]) -> float | None:
        """Return the mean of values given by benchmark label, or None if one is missing."""
        if not all(label in values for label in self.labels):
            return None
        return fmean(fmean(values[label] for label in labels) for labels in self.sources)


class View(NamedTuple):
    """A choice of columns, and the metric that published figures for them follow."""

    columns: tuple[Column, ...]
    metric: str = "mIoU"

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings of the columns, in order."""
        return tuple(column.heading for column in self.columns)


def _mean(heading: str, datasets: Collection[MessDataset]) -> Column:
    return Column(heading, tuple(tuple(dataset.parts) for dataset in datasets))


_DATASETS = tuple(_mean(dataset.label, [dataset]) for dataset in MESS_DATASETS)
_DOMAINS = tuple(
    _mean(domain, [dataset for dataset in MESS_DATASETS if dataset.domain == domain])
    for domain in DOMAINS
)
_MEAN = _mean("Mean", MESS_DATASETS)  # over the datasets, as published, not over the domains

# MESS's own evaluator computes what is named mIoU_present_or_predicted here.
_MESS_METRIC = "mIoU_present_or_predicted"
VIEWS = {
    "benchmarks": View(tuple(Column(one.label, ((one.label,),)) for one in BENCHMARKS)),
    "mess": View((*_DOMAINS, _MEAN), _MESS_METRIC),
    "mess-datasets": View((*_DATASETS, _MEAN), _MESS_METRIC),
}
