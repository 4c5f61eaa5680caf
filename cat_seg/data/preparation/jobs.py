"""Making one label map: only where it is missing, checked, and complete or absent."""

from __future__ import annotations

import filecmp
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image

from cat_seg.data.reading import check_label_size, check_label_values, read_image_size
from cat_seg.data.registration import DatasetSpec
from cat_seg.errors import UserError
from cat_seg.utils.files import atomic_write

SAVING = {
    ".png": {"format": "PNG"},
    ".tif": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
}


@dataclass(frozen=True)
class Job:
    """A label map to make, and the image it belongs to.

    Attributes:
        label: the file to write.
        image: the image, whose size the label must have; None where there are no images yet.
        sources: the files it is made from; what is older than one of them is made anew.
        make_label: gives the (H, W) integers; picklable, as the other one.
        make_image: gives the content of the file `image`, where that is to be written too.
    """

    label: Path
    image: Path | None
    sources: tuple[Path, ...]
    make_label: Callable[[], np.ndarray]
    make_image: Callable[[], bytes] | None = None

    @property
    def targets(self) -> tuple[Path, ...]:
        """The files to write."""
        return (self.image, self.label) if self.make_image else (self.label,)


@dataclass(frozen=True)
class Conversion:
    """All the jobs of a registered dataset.

    Attributes:
        spec: the dataset.
        labels: folder of the label maps.
        jobs: one for each label map.
        warnings: what the user should know beforehand, a line each.
        drops_unlabelled: maps without a labelled pixel are not written.
    """

    spec: DatasetSpec
    labels: Path
    jobs: tuple[Job, ...]
    warnings: tuple[str, ...] = ()
    drops_unlabelled: bool = False


def splits_on_disk(finders: Sequence[Callable[[], Conversion]]) -> list[Conversion]:
    """Return the conversions of the splits that are on disk; a missing one is a warning.

    Raises:
        UserError: there is none; the error of the first.
    """
    found, missing = [], []
    for find in finders:
        try:
            found.append(find())
        except UserError as error:
            missing.append(str(error))
    if not found:
        raise UserError(missing[0])
    return [replace(found[0], warnings=(*missing, *found[0].warnings)), *found[1:]]


class State(Enum):
    """What became of a job; the value says it in a report."""

    CONVERTED = "converted"
    KEPT = "kept as they were"  # complete, sound and not older than the source
    UNLABELLED = "not written, having no labelled pixel"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of a job, and why where it failed."""

    state: State
    problem: str = ""


@dataclass(frozen=True)
class LabelRules:
    """What the label maps of a dataset hold.

    Attributes:
        classes: labels are 0 to classes - 1.
        ignore_label: the value of every other pixel.
        drops_unlabelled: maps without a labelled pixel are not written.
    """

    classes: int
    ignore_label: int
    drops_unlabelled: bool

    @classmethod
    def of(cls, conversion: Conversion) -> LabelRules:
        """Read the rules of a conversion."""
        spec = conversion.spec
        return cls(len(spec.label_names()), spec.ignore_label, conversion.drops_unlabelled)

    @property
    def dtype(self) -> np.dtype:
        """Type of the values in the file."""
        return np.min_scalar_type(self.ignore_label)


def run_job(rules: LabelRules, job: Job) -> Outcome:
    """Make the files of a job, unless they are there and intact.

    Raises:
        UserError: a file cannot be written; the next one could not either.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, about files that then turn out to be broken
        if _is_intact(job, rules):
            return Outcome(State.KEPT)
        try:
            for source in job.sources:
                if source.suffix == ".png":
                    _verify(source)
            label = job.make_label()
            image = job.make_image() if job.make_image else None
            _check(label, job.sources[0], rules, job.image if image is None else None)
        except UserError as error:
            return Outcome(State.FAILED, str(error))
        except Exception as error:  # the decoders raise OSError, SyntaxError, zlib.error and more
            names = " with ".join(map(str, job.sources))
            reason = str(error) or type(error).__name__
            return Outcome(State.FAILED, f"cannot convert {names}: {reason}; replace or remove it")
    if rules.drops_unlabelled and (label == rules.ignore_label).all():
        job.label.unlink(missing_ok=True)
        return Outcome(State.UNLABELLED)
    try:
        if image is not None:
            with atomic_write(job.image) as file:
                file.write(image)
        with atomic_write(job.label) as file:
            Image.fromarray(label.astype(rules.dtype)).save(file, **SAVING[job.label.suffix])
    except OSError as error:
        raise UserError(
            f"cannot write {job.label}: {error}; make room or mend the permissions, "
            "and run it again"
        ) from error
    return Outcome(State.CONVERTED)


def _is_intact(job: Job, rules: LabelRules) -> bool:
    try:
        newest_source = max(os.stat(path).st_mtime_ns for path in job.sources)
        if min(os.stat(path).st_mtime_ns for path in job.targets) < newest_source:
            return False
        # Earlier versions copied images; the published script encodes every one anew.
        if job.make_image and filecmp.cmp(job.image, job.sources[0], shallow=False):
            return False
        for path in job.targets:
            _verify(path)
            with Image.open(path) as file:
                label = np.asarray(file)  # at the end, the last target's
        _check(label, job.label, rules, job.image)
    except Exception:  # as in `run_job`; making it anew names what is wrong with the source
        return False
    return label.dtype == rules.dtype


def _verify(path: Path) -> None:
    """Compare the checksums of a PNG, some of which reading passes over; other kinds have none."""
    with Image.open(path) as file:
        file.verify()


def _check(label: np.ndarray, path: Path, rules: LabelRules, image: Path | None) -> None:
    if label.ndim != 2 or not label.size or label.dtype.kind not in "bui":
        raise UserError(
            f"label {path} is not one channel of integers (shape {label.shape}, {label.dtype}); "
            "replace it"
        )
    check_label_values(label, str(path), rules.classes, rules.ignore_label)
    if image:
        check_label_size(label.shape, str(path), read_image_size(str(image)), str(image))
