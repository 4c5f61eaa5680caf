"""Check datasets on disk and draw a few samples of each.

Checks that each dataset is complete, that label values are in range, and that label maps have the
size of their images. Reads every label map, every PNG image, and the headers of other images.
Exits with 1 if a dataset on disk has problems, else with 0; missing datasets are not a problem.
Warnings report what is allowed but rarely intended.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode
from PIL import Image
from tabulate import tabulate

from cat_seg.configuration import load_config
from cat_seg.data.catalog import DATASETS, GROUPS, LABELS, MESS, datasets_named
from cat_seg.data.custom import CustomSpec
from cat_seg.data.reading import read_image, read_label
from cat_seg.data.registration import is_on_disk, spec_of
from cat_seg.data.soundness import DatasetReport, check_dataset
from cat_seg.data.specs import DatasetSpec, datasets_root
from cat_seg.errors import UserError, one_line_errors, printable
from cat_seg.utils.files import atomic_write
from cat_seg.utils.parallel import add_jobs_option, check_jobs
from cat_seg.utils.paths import WORK_ROOT, resolve
from cat_seg.visualization import contact_sheet
from cat_seg.visualization.overlay import percent

UNSOUND, INTERRUPTED = 1, 130
PROBLEMS_SHOWN = 10
IGNORED = -1  # ignored pixels in pictures; the dataset's own ignore label may be a class index
PANEL, SHEET_COLUMNS, LABEL_OPACITY = 400, 2, 0.75  # of the picture of samples; PANEL in pixels
HEADINGS = ("Dataset", "Benchmark", "Images", "Expected", "Classes", "Result")


class Sample(NamedTuple):
    """An image (H, W, 3) uint8 RGB, its label map (H, W) of integers, and a caption."""

    caption: str
    image: np.ndarray
    label: np.ndarray


def write_sheet(
    report: DatasetReport, samples: int, path: Path, ignore_orientation: bool = False
) -> bool:
    """Draw evenly spaced samples of a dataset, skipping unreadable ones.

    Returns:
        Whether there was any sample to draw.
    """
    path.unlink(missing_ok=True)
    count = len(report.records)
    picked = np.linspace(0, count - 1, min(samples, count)).round().astype(int)
    read = [
        sample for index in picked if (sample := _read_sample(report, index, ignore_orientation))
    ]
    if not read:
        return False
    spec = report.spec
    whole = "" if spec.expected is None else f" of {spec.expected}"
    remark = (
        f"{count}{whole} labeled images  ·  {report.seen} of {len(report.names)} classes occur"
        f"  ·  ignore label {spec.ignore_label}"
    )
    title = "  ·  ".join(filter(None, (LABELS.get(spec.name), spec.name)))
    sheet = contact_sheet(
        [sample.image for sample in read],
        [[sample.label] for sample in read],
        report.names,
        alpha=LABEL_OPACITY,
        panel_size=PANEL,
        heading=title,
        remark=remark,
        captions=[sample.caption for sample in read],
        columns=min(SHEET_COLUMNS, len(read)),
        legend_per_image=True,
    )
    with atomic_write(path) as file:
        Image.fromarray(sheet).save(file, format="PNG")
    return True


def _read_sample(report: DatasetReport, index: int, ignore_orientation: bool) -> Sample | None:
    record = report.records[index]
    try:
        image = read_image(record["file_name"], "RGB", ignore_orientation)
        label = read_label(record["sem_seg_file_name"], ignore_orientation=ignore_orientation)
    except UserError as error:
        if str(error) not in report.problems:  # the image is damaged after its header
            report.problems.append(str(error))
        return None
    if label.shape != image.shape[:2]:
        return None
    label[label == report.spec.ignore_label] = IGNORED
    ignored = percent(float(np.mean((label < 0) | (label >= len(report.names)))))
    height, width = label.shape
    name = printable(Path(record["file_name"]).name)
    return Sample(f"{name}  ·  {width} x {height}  ·  {ignored} ignored", image, label)


def run(args: argparse.Namespace) -> int:
    """Check the requested datasets, print the table, and return the exit status."""
    cfg = load_config(args.config_file) if args.config_file else None
    as_stored = cfg is not None and cfg.INPUT.IGNORE_EXIF_ORIENTATION
    reports = []
    for spec in _specs(args.datasets, cfg):
        if not (is_on_disk(spec.name) or isinstance(spec, CustomSpec)):
            print(printable(spec.missing()))
            reports.append(DatasetReport(spec))
            continue
        report = check_dataset(spec, args.jobs, as_stored)
        sheet = args.output / f"{spec.name}.png"
        if write_sheet(report, args.samples, sheet, as_stored):
            print(printable(f"{spec.name}: samples drawn in {sheet}"))
        for warning in report.warnings:
            print(f"{spec.name}: warning: {warning}", file=sys.stderr)
        _list_problems(report, args.output / f"{spec.name}.problems.txt")
        reports.append(report)
    print(tabulate(map(row, reports), HEADINGS, "github", missingval="-"))
    if all(report.missing for report in reports):
        root = printable(datasets_root())
        print(f"no datasets found in {root}; see datasets/README.md for how to get them")
    return UNSOUND if any(report.problems for report in reports) else 0


def row(report: DatasetReport) -> tuple[str | int | None, ...]:
    """Return a dataset's row of the table."""
    spec = report.spec
    counts = {"problem": len(report.problems), "warning": len(report.warnings)}
    found = [f"{count} {kind}{'s' * (count > 1)}" for kind, count in counts.items() if count]
    result = ", ".join(found if report.problems else ["ok", *found])
    return (
        spec.name,
        LABELS.get(spec.name),
        None if report.missing else len(report.records),
        spec.expected and f"{'at most ' * spec.drops_unlabeled}{spec.expected}",
        f"{report.seen} of {len(report.names)}" if report.records else None,
        "not found" if report.missing else result,
    )


def _list_problems(report: DatasetReport, path: Path) -> None:
    """Print the first problems and write all of them to a file; without any, remove the file."""
    path.unlink(missing_ok=True)
    if not report.problems:
        return
    for problem in report.problems[:PROBLEMS_SHOWN]:
        print(f"{report.spec.name}: {problem}", file=sys.stderr)
    with atomic_write(path) as file:
        file.writelines(f"{problem}\n".encode() for problem in report.problems)
    print(printable(f"{report.spec.name}: full list of problems in {path}"), file=sys.stderr)


def _specs(names: Sequence[str] | None, cfg: CfgNode | None) -> list[DatasetSpec]:
    if names is not None:
        return [spec_of(name) for name in datasets_named(names)]
    mess = filter(is_on_disk, GROUPS[MESS])
    return [*DATASETS, *map(spec_of, (*mess, *(cfg.DATASETS.CUSTOM if cfg else ())))]


def _parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    called_as_command = sys.argv[0].startswith("hps-seg")
    program = sys.argv[0] if called_as_command else "python -m cat_seg.data.check"
    parser = argparse.ArgumentParser(
        prog=program,
        description=__doc__,
        epilog=f"example:\n  {program} --datasets A-150 --jobs 8",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root",
        help="folder that contains the datasets (default: $DETECTRON2_DATASETS, else this "
        "repository's datasets/)",
    )
    parser.add_argument(
        "--datasets",
        nargs="+",
        metavar="NAME",
        help="dataset names, benchmark names such as A-150, or MESS (default: the six benchmarks "
        "and the training sets, what there is of MESS, and the custom datasets of --config-file)",
    )
    parser.add_argument(
        "--config-file",
        help="config whose DATASETS.CUSTOM is checked too, and whose "
        "INPUT.IGNORE_EXIF_ORIENTATION is used",
    )
    add_jobs_option(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=WORK_ROOT / "output/dataset_check",
        help="folder for pictures and lists of problems (default: %(default)s)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=8,
        metavar="N",
        help="number of images to draw per dataset (default: %(default)s)",
    )
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the check and return the exit status."""
    args = _parse_args(argv)
    check_jobs(args.jobs)
    if args.samples < 0:
        raise UserError(f"--samples {args.samples}: give 0 or more")
    if args.root:
        root = resolve(args.root)
        if not root.is_dir():
            raise UserError(
                f"--root {root}: no such folder; give the folder that contains the datasets"
            )
        os.environ["DETECTRON2_DATASETS"] = str(root.absolute())
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        return run(args)
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; fix its permissions or choose another --output"
        ) from error
    except KeyboardInterrupt:
        print("interrupted; check the remaining datasets with --datasets", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
