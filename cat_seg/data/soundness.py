"""Checks that a dataset on disk is complete, with valid labels and matching sizes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from cat_seg.data.reading import check_label_size, check_label_values, read_image_size, read_label
from cat_seg.data.registration import find_pairs, why_incomplete
from cat_seg.data.specs import DatasetSpec
from cat_seg.errors import UserError, printable
from cat_seg.utils.parallel import run_in_processes
from cat_seg.utils.progress import bar

Record = dict[str, str]

# A dataset that drops unlabeled images is incomplete below this fraction of the expected labels:
# almost every PASCAL VOC image has an object, so fewer labels suggest an interrupted conversion.
LEAST_LABELED = 0.95


class PairReport(NamedTuple):
    """The label values of one image, without the ignore label, and its problems."""

    values: list[int]
    problems: list[str]

    @property
    def is_unlabeled(self) -> bool:
        """Whether the label map is sound but has only ignored pixels."""
        return not (self.values or self.problems)


@dataclass
class DatasetReport:
    """The result of checking one dataset.

    Attributes:
        names: names of the label values.
        records: the images with a label.
        seen: number of classes that occur in any label map.
        problems: one line per problem.
        warnings: what is allowed but rarely intended, one line each.
    """

    spec: DatasetSpec
    names: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    seen: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def missing(self) -> bool:
        """Whether nothing of the dataset is on disk."""
        return not (self.records or self.problems)


def check_pair(
    num_values: int, ignore_label: int, record: Record, ignore_orientation: bool = False
) -> PairReport:
    """Check one label map and the size of its image.

    Args:
        num_values: labels are 0 to num_values - 1, or the ignore label.
        ignore_label: the value of unlabeled pixels.
        record: file_name and sem_seg_file_name.
        ignore_orientation: read both files as stored, ignoring EXIF orientation.
    """
    image_path, label_path = record["file_name"], record["sem_seg_file_name"]
    values, problems = np.empty(0, dtype=np.int64), []
    try:
        label = read_label(label_path, ignore_orientation=ignore_orientation)
        values = np.unique(label)
        check_label_values(values, label_path, num_values, ignore_label)
    except UserError as error:
        problems.append(str(error))
        label = None
    try:
        size = read_image_size(image_path, ignore_orientation)
        if label is not None:
            check_label_size(label.shape, label_path, size, image_path)
    except UserError as error:
        problems.append(str(error))
    known = (values >= 0) & (values < num_values) & (values != ignore_label)
    return PairReport(values[known].tolist(), problems)


def check_dataset(spec: DatasetSpec, jobs: int, ignore_orientation: bool = False) -> DatasetReport:
    """Check all pairs of a dataset on disk in `jobs` processes, with a progress bar."""
    report = DatasetReport(spec)
    try:
        report.names = spec.label_names()
        report.records, problems = find_pairs(spec)
        report.problems = [printable(problem) for problem in problems]
    except UserError as error:
        report.problems.append(str(error))
        return report
    if not _is_complete(spec, len(report.records)):
        report.problems.append(why_incomplete(spec, len(report.records)))
    check = partial(
        check_pair, len(report.names), spec.ignore_label, ignore_orientation=ignore_orientation
    )
    pairs: dict[str, PairReport] = {}
    with (
        closing(run_in_processes(check, report.records, jobs)) as done,
        bar(desc=spec.name, total=len(report.records), unit="image") as progress,
    ):
        for record, pair in done:
            progress.update()
            pairs[record["sem_seg_file_name"]] = pair
    seen = {value for pair in pairs.values() for value in pair.values}
    report.seen = len(seen)
    report.problems += [line for path in sorted(pairs) for line in pairs[path].problems]
    unlabeled = sorted(path for path, pair in pairs.items() if pair.is_unlabeled)
    if unlabeled and len(unlabeled) == len(pairs):
        report.problems.append(
            f"no label map has a labeled pixel: all values are {spec.ignore_label}, the ignore "
            "label; store class indices"
        )
    elif unlabeled:
        report.warnings.append(
            f"{len(unlabeled)} of {len(pairs)} label maps have no labeled pixels (first: "
            f"{printable(unlabeled[0])}): all values are {spec.ignore_label}, the ignore label"
        )
    if len(seen) == 1 < len(report.names):
        (only,) = seen
        report.warnings.append(
            f"only class {only} ({report.names[only]}) of {len(report.names)} occurs, and all "
            f"other pixels are {spec.ignore_label}, the ignore label; if these are binary "
            "masks, convert them to class indices"
        )
    return report


def _is_complete(spec: DatasetSpec, count: int) -> bool:
    if spec.expected is None:
        return True
    least = LEAST_LABELED * spec.expected if spec.drops_unlabeled else spec.expected
    return least <= count <= spec.expected
