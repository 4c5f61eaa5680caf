"""Compare H-CLIP, HPA, AFR, HPS-Seg and others on the quickstart's data, over several seeds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cat_seg.errors import UserError, one_line_errors
from cat_seg.utils.files import atomic_write, exclusive_lock
from cat_seg.utils.parallel import add_jobs_option, check_jobs
from tools.ablation.figure import draw_ablation
from tools.ablation.methods import BASE, METHODS, SWEEP
from tools.ablation.pipeline import HARD, run_ablation
from tools.ablation.report import write_report
from tools.quickstart.pipeline import Settings

INTERRUPTED = 130
AVAILABLE = {method.name: method for method in (*METHODS, *SWEEP)}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.ablation", description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        help="output folder; a second run resumes there (default: output/ablation_quickstart, with "
        "--hard output/ablation_hard)",
    )
    parser.add_argument(
        "--hard",
        action="store_true",
        help="draw harder data: more classes, occlusion, and a second domain in another style",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of seeds, from 0 (default: %(default)s)"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=AVAILABLE,
        default=[method.name for method in METHODS],
        metavar="NAME",
        help=f"what to compare with {BASE.title} (default: %(default)s); also the settings of "
        f"--sweep by name: {', '.join(method.name for method in SWEEP)}",
    )
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="compare HPS-Seg under other settings of HPA and AFR, instead of the methods",
    )
    add_jobs_option(parser)
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None, settings: Settings | None = None) -> None:
    """Run the ablation, and print the table and the files written."""
    args = parse_args(argv)
    check_jobs(args.jobs)
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: give 1 or more")
    names = ["enhanced", *(method.name for method in SWEEP)] if args.sweep else args.methods
    methods = [BASE, *(AVAILABLE[name] for name in names if name != BASE.name)]
    seeds = range(args.seeds)
    settings = settings or (HARD if args.hard else Settings())
    output = args.output or Path("output", "ablation_hard" if args.hard else "ablation_quickstart")
    name = "sweep" if args.sweep else "ablation"
    try:
        output.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(output):
            scores = run_ablation(output, seeds, methods, args.jobs, settings)
            text = write_report(output / f"{name}.md", scores, seeds)
            with atomic_write(output / f"{name}.png") as png:
                draw_ablation(scores, seeds).savefig(png, format="png")
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to resume", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        raise UserError(f"--output {output}: {error}") from error
    print(f"\n{text}")
    for suffix, what in (
        ("md", "the tables above"),
        ("json", "every seed, and the differences"),
        ("png", "every seed as a dot"),
    ):
        print(f"{output / name}.{suffix}: {what}")


if __name__ == "__main__":
    main()
