"""Say in what two results differ, and whether the difference in mIoU is larger than chance.

A and B are results.json files, their folders, or output folders of runs, whose results on the same
datasets are compared. The interval of the difference comes from a paired bootstrap over the images.
It says what the choice of images explains, not what another training seed does. Exit status: 0, or
1 if two results are not of the same images and labels.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from cat_seg.errors import UserError, one_line_errors, printable
from cat_seg.evaluation.image_counts import ImageCounts, image_counts_file, read_image_counts
from cat_seg.evaluation.results.bootstrap import RESAMPLES, Comparison, compare, mismatch
from cat_seg.evaluation.results.differences import Content, Difference, differences
from cat_seg.evaluation.results.read import label_of, read_content, results_files

EXAMPLE = """\
examples:
  %(prog)s output/h_clip output/enhanced
  %(prog)s a/results.json b/results.json --json
"""
WIDTH = 44  # characters of a value in the table
HASH = 64  # a SHA-256 in hex
CLOSE = 1e-6  # points of mIoU, rounding of sums in another order


class Pair(NamedTuple):
    """Two results files and what they hold."""

    files: tuple[Path, Path]
    contents: tuple[Content, Content]

    @property
    def title(self) -> str:
        """Name of the benchmark, or of the datasets."""
        names = [str(label_of(content) or content.get("dataset")) for content in self.contents]
        return " and ".join(dict.fromkeys(names))


class Outcome(NamedTuple):
    """The comparison of a pair.

    Attributes:
        differences: in what the two differ.
        found: the paired test; None if it was refused.
        classes: the class names of `found`.
        refused: why there is no paired test.
    """

    differences: list[Difference]
    found: Comparison | None = None
    classes: Sequence[str] = ()
    refused: str = ""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", metavar="A", help="results.json, its folder, or a run's folder")
    parser.add_argument("second", metavar="B", help="the same for the other one")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--classes",
        type=int,
        default=10,
        metavar="N",
        help="number of classes to list, those that differ most first (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    if args.resamples < 100:
        raise UserError(f"--resamples {args.resamples}: give at least 100")
    if args.classes < 0:
        raise UserError(f"--classes {args.classes}: give 0 or more")
    return args


def pairs(first: str, second: str) -> tuple[list[Pair], list[str]]:
    """Return the results to compare, and the datasets that only one of the two has.

    Raises:
        UserError: a file cannot be read, or no dataset is in both.
    """
    sides = [
        {content.get("dataset"): (file, content) for file, content in _contents(place)}
        for place in (first, second)
    ]
    if all(len(side) == 1 for side in sides):
        (one,), (other,) = (side.values() for side in sides)
        return [Pair((one[0], other[0]), (one[1], other[1]))], []
    shared = [name for name in sides[0] if name in sides[1]]
    if not shared:
        raise UserError(f"{first} and {second} have no dataset in common")
    found = [
        Pair((sides[0][name][0], sides[1][name][0]), (sides[0][name][1], sides[1][name][1]))
        for name in shared
    ]
    return found, sorted(map(str, {*sides[0]} ^ {*sides[1]}))


def _contents(place: str) -> Iterator[tuple[Path, Content]]:
    for file in results_files(place):
        yield file, read_content(file)


def outcome(pair: Pair, resamples: int) -> Outcome:
    """Compare two results."""
    different = differences(*pair.contents)
    try:
        first, second = (
            _counts(file, content) for file, content in zip(pair.files, pair.contents, strict=True)
        )
    except UserError as error:
        return Outcome(different, refused=str(error))
    problem = mismatch(first, second)
    if problem is not None:
        return Outcome(different, refused=problem)
    if not first.labeled.any():
        return Outcome(different, refused="no pixel is labeled")
    return Outcome(different, compare(first, second, resamples), first.classes)


def _counts(file: Path, content: Content) -> ImageCounts:
    """Return the counts of the images of a results file.

    Raises:
        UserError: they are missing, damaged, or of another evaluation.
    """
    counts = read_image_counts(file)
    classes = len(counts.classes)
    sums = [
        np.bincount(counts.columns, values, classes)
        for values in (counts.right, counts.labeled, counts.predicted)
    ]
    right, labeled, predicted = (each[sums[1] > 0] for each in sums)
    recounted = 100 * np.mean(right / (labeled + predicted - right)) if len(right) else math.nan
    recorded = content["sem_seg"].get("mIoU")
    if not np.isclose(math.nan if recorded is None else recorded, recounted, 0, CLOSE, True):
        raise UserError(f"{image_counts_file(file)} does not belong to {file}; evaluate again")
    return counts


def verdict(found: Comparison) -> str:
    """Say in one line what the paired test says."""
    if found.difference == found.low == found.high == 0:
        return "A and B are equal."
    if found.larger_than_chance:
        better = "B" if found.difference > 0 else "A"
        return f"{better} is better; the difference is larger than chance over images."
    return "The difference is within chance over images."


def largest(found: Comparison, classes: Sequence[str], count: int) -> list[list[Any]]:
    """Return name, images, IoU of A and of B, and difference of the classes that differ most."""
    change = found.iou[1] - found.iou[0]
    order = np.argsort(-np.abs(np.nan_to_num(change)), kind="stable")[:count]
    return [
        [classes[i], int(found.images[i]), *map(float, found.iou[:, i]), float(change[i])]
        for i in order
        if change[i] and not math.isnan(change[i])
    ]


def text_of(pair: Pair, result: Outcome, resamples: int, classes: int) -> str:
    """Format the comparison of a pair for a terminal."""
    parts = [f"## {pair.title}", f"A: {pair.files[0]}\nB: {pair.files[1]}"]
    if result.differences:
        rows = [[d.part, d.name, _short(d.first), _short(d.second)] for d in result.differences]
        parts.append(tabulate(rows, ["", "differs", "A", "B"], "github", disable_numparse=True))
    else:
        parts.append("Settings, code, environment, weights and data are the same.")
    found = result.found
    if found is None:
        values = [content["sem_seg"].get("mIoU") for content in pair.contents]
        first, second = ("-" if value is None else f"{value:.2f}" for value in values)
        parts.append(f"mIoU: A {first}, B {second}\nNo paired test: {result.refused}.")
        return "\n\n".join(map(printable_lines, parts)) + "\n"
    parts.append(
        f"mIoU: A {found.miou[0]:.2f}, B {found.miou[1]:.2f}, difference {found.difference:+.2f}, "
        f"95 % interval {found.low:+.2f} to {found.high:+.2f} ({resamples} resamples of "
        f"the images)\n{verdict(found)}"
    )
    rows = largest(found, result.classes, classes)
    if rows:
        headers = ["class", "images", "IoU of A", "of B", "difference"]
        cells = [[name, n, f"{a:.1f}", f"{b:.1f}", f"{d:+.1f}"] for name, n, a, b, d in rows]
        align = ["left", *["right"] * 4]
        parts.append(tabulate(cells, headers, "github", disable_numparse=True, colalign=align))
    return "\n\n".join(map(printable_lines, parts)) + "\n"


def printable_lines(text: str) -> str:
    """Escape control characters of names, but keep the line breaks of a text."""
    return "\n".join(map(printable, text.split("\n")))


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    if len(text) == HASH and text.isalnum():
        return text[:12]
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def json_of(pair: Pair, result: Outcome, classes: int) -> dict[str, Any]:
    """Return the comparison of a pair as JSON-serializable values."""
    content: dict[str, Any] = {
        "title": pair.title,
        "files": [str(file) for file in pair.files],
        "differences": [difference._asdict() for difference in result.differences],
        "mIoU": [one["sem_seg"].get("mIoU") for one in pair.contents],
    }
    if result.found is None:
        return content | {"refused": result.refused}
    found = result.found
    names = ("class", "images", "first", "second", "difference")
    return content | {
        "difference": found.difference,
        "interval": [found.low, found.high],
        "larger_than_chance": found.larger_than_chance,
        "verdict": verdict(found),
        "classes": [
            dict(zip(names, row, strict=True)) for row in largest(found, result.classes, classes)
        ],
    }


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; returns the exit status."""
    args = parse_args(argv)
    chosen, alone = pairs(args.first, args.second)
    results = [outcome(pair, args.resamples) for pair in chosen]
    if args.json:
        content = {
            "resamples": args.resamples,
            "comparisons": [
                json_of(pair, result, args.classes)
                for pair, result in zip(chosen, results, strict=True)
            ],
            "only_in_one": alone,
        }
        print(json.dumps(content, indent=1))
    else:
        for pair, result in zip(chosen, results, strict=True):
            print(text_of(pair, result, args.resamples, args.classes))
        if alone:
            print(f"Only in one of the two: {', '.join(alone)}")
    return int(any(result.found is None for result in results))
