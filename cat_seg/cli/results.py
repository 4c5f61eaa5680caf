"""Print the results table of runs: methods, benchmarks, and the differences to a baseline.

Give the output folders of runs, which contain eval/inference/*/results.json, or folders that
contain such folders (output/ablation). For a checkpoint other than the last, give its eval_NAME
folder. Several runs of one method, with different seeds, become one row with mean and standard
deviation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cat_seg.errors import UserError, one_line_errors
from cat_seg.evaluation.results.chart import draw_chart
from cat_seg.evaluation.results.checks import doubts, gaps
from cat_seg.evaluation.results.columns import VIEWS
from cat_seg.evaluation.results.formats import FORMATS
from cat_seg.evaluation.results.published import published_rows
from cat_seg.evaluation.results.read import read_runs
from cat_seg.evaluation.results.table import summarize
from cat_seg.utils.files import atomic_write

EXAMPLE = """\
example:
  %(prog)s output/ablation output/ablation_seed1 --chart results.png
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="output folder of a run")
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="table format")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the table here")
    parser.add_argument("--chart", type=Path, metavar="FILE.png", help="also draw a bar chart")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="method to compare with, as named in the table (default: H-CLIP, or the first "
        "method of each backbone if there is no H-CLIP)",
    )
    parser.add_argument(
        "--table",
        choices=VIEWS,
        default="benchmarks",
        help="columns: the six benchmarks (default), the domains of MESS with the mean over its 22 "
        "datasets, or each of these datasets",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="with a table of MESS, also list the published figures (not in the chart)",
    )
    parser.add_argument(
        "--metric",
        help="mIoU, mIoU_present_or_predicted, fwIoU, mACC, pACC or IoU-CLASS (default: mIoU; for "
        "MESS mIoU_present_or_predicted, as in its published figures)",
    )
    args = parser.parse_args(argv)
    if args.chart is not None and args.chart.suffix.lower() != ".png":
        raise UserError(f"--chart {args.chart}: give a file name ending in .png")
    return args


def write(path: Path, content: str | Figure) -> None:
    """Write a table, or a chart as PNG.

    Raises:
        UserError: the file cannot be written.
    """
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; give a file name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            with atomic_write(path, "w") as file:
                file.write(content)
        else:
            with atomic_write(path) as file:
                content.savefig(file, format="png")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def warn(text: str) -> None:
    """Print a warning about the results on stderr."""
    print(f"warning: {text}", file=sys.stderr)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Read the runs, print the table, and write the requested files."""
    args = parse_args(argv)
    runs = read_runs(args.runs)
    for doubt in doubts(runs):
        warn(doubt)
    view = VIEWS[args.table]
    metric = args.metric or view.metric
    for gap in gaps(runs, view):
        warn(gap)
    rows = summarize(runs, metric, args.baseline, view.columns)
    published = published_rows(args.table, metric) if args.published else []
    table = FORMATS[args.format]([*rows, *published], metric, view.headings)
    print(table, end="")
    if args.output is not None:
        write(args.output, table)
    if args.chart is not None:
        figure = draw_chart(rows, metric, view.headings)
        if figure is None:
            warn(f"no results to plot; {args.chart} was not written")
        else:
            write(args.chart, figure)
