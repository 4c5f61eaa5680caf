"""Draw what a finished training has learned, and how.

Writes pictures, their numbers (analysis.json) and a page (index.html) into RUN/analysis. What the
run does not have is left out, and said. See docs/analysis.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detectron2.utils.logger import setup_logger

from cat_seg.cli.analysing.report import PAGE, Report
from cat_seg.cli.analysing.run import read_run
from cat_seg.cli.analysing.sections import SECTIONS
from cat_seg.errors import UserError, one_line_errors
from cat_seg.utils.progress import bar

IMAGES = 4
EXAMPLE = """\
examples:
  %(prog)s output/enhanced
  %(prog)s output/enhanced --images photos/*.jpg --output pictures
  %(prog)s output/enhanced --only prototypes rectification --device cpu

Curves over training need a run with SOLVER.DIAGNOSTICS_PERIOD.
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        help="output folder of a training: config.yaml, model_final.pth, metrics.json and "
        "inference/*/results.json",
    )
    parser.add_argument("--output", type=Path, help="folder to write to (default: RUN/analysis)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        metavar="PART",
        help=f"parts to make, of {', '.join(SECTIONS)} (default: all)",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="FILE",
        help="images to draw AFR over (default: the first ones of the run's test set)",
    )
    parser.add_argument(
        "--count",
        type=int,
        default=IMAGES,
        help="number of images without --images (default: %(default)s)",
    )
    parser.add_argument("--device", help="cuda, mps or cpu (default: the first that is there)")
    parser.add_argument(
        "--opts",
        nargs="*",
        default=[],
        metavar="KEY VALUE",
        help="changes to the run's config, such as TEST.SLIDING_WINDOW True",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Make the sections, one after the other, and write them.

    Raises:
        UserError: the run or its model cannot be read, or a file cannot be written.
    """
    if args.count < 1:
        raise UserError(f"--count is {args.count}; give 1 or more")
    found = read_run(
        args.run, device=args.device, images=args.images, count=args.count, opts=args.opts
    )
    if args.images:
        _ = found.images  # one that cannot be read is an error, not a reason to leave AFR out
    _ = found.model
    report = Report(args.output or found.folder / "analysis", f"Analysis of {found.folder}")
    chosen = {name: SECTIONS[name] for name in SECTIONS if name in (args.only or SECTIONS)}
    with bar(total=len(chosen), unit="part") as progress:
        for name, (heading, make) in chosen.items():
            progress.set_description(name)
            try:
                section = make(found)
            except UserError as error:
                report.leave_out(name, heading, str(error))
                lines = [f"{name}: left out: {error}"]
            else:
                files = report.add(name, heading, section)
                lines = [f"{name}: {', '.join(file.name for file in files)}"]
                lines += [f"  {note}" for note in section.notes]
            for line in lines:
                progress.write(line)
            progress.update()
    report.finish({"run": str(found.folder), "weights": found.cfg.MODEL.WEIGHTS})
    print(f"wrote {report.folder / PAGE}")


@one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    setup_logger(name="cat_seg")
    run(args)
