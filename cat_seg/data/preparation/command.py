"""The command line shared by all preparation scripts."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from cat_seg.data.folders import file_names
from cat_seg.data.preparation.jobs import Conversion, LabelRules, State, run_job
from cat_seg.data.specs import DatasetSpec, datasets_root
from cat_seg.errors import UserError, one_line_errors, printable
from cat_seg.utils.files import PARTIAL, exclusive_lock
from cat_seg.utils.parallel import add_jobs_option, check_jobs, run_in_processes
from cat_seg.utils.paths import resolve
from cat_seg.utils.progress import bar

INTERRUPTED = 130
PROBLEMS_SHOWN = 10


@one_line_errors
def prepare(
    find: Callable[[Path], list[Conversion]], description: str, argv: Sequence[str] | None = None
) -> None:
    """Convert raw datasets in parallel, skipping files that are done, and check the results.

    Exits with 2 if a file could not be converted, and with 130 after Ctrl-C or SIGTERM. Running
    the same command again resumes.

    Args:
        find: returns the conversions for the raw data below the given datasets root.
        description: help text of the script.
        argv: arguments to use instead of sys.argv.
    """
    args = _parse_args(description, argv)
    check_jobs(args.jobs)
    root = resolve(args.root) if args.root else datasets_root()
    try:
        problems = [problem for made in find(root) for problem in _convert(made, args.jobs)]
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to resume", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        raise UserError(f"{error}; fix that and run the same command again") from error
    if root.resolve() != datasets_root().resolve():
        line = (
            f"to use these datasets: export DETECTRON2_DATASETS={shlex.quote(str(root.resolve()))}"
        )
        print(printable(line))
    if problems:
        for problem in problems[:PROBLEMS_SHOWN]:
            print(printable(problem), file=sys.stderr)
        if len(problems) > PROBLEMS_SHOWN:
            print(f"... and {len(problems) - PROBLEMS_SHOWN} more", file=sys.stderr)
        count = f"{len(problems)} file{'s' * (len(problems) > 1)}"
        raise UserError(f"{count} failed; fix them and run the same command again")


def _parse_args(description: str, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--root",
        help="folder of all datasets, both raw and converted "
        "(default: $DETECTRON2_DATASETS, else this repository's datasets/)",
    )
    add_jobs_option(parser)
    return parser.parse_args(argv)


def _convert(conversion: Conversion, processes: int) -> list[str]:
    """Run the jobs of a conversion, print a summary, and return the problems."""
    for warning in conversion.warnings:
        _warn(conversion.spec, warning)
    conversion.labels.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(conversion.labels):
        states, problems = _run_jobs(conversion, processes)
    _report(conversion, states)
    return problems


def _run_jobs(conversion: Conversion, processes: int) -> tuple[Counter[State], list[str]]:
    """Run the jobs of a conversion; return the number of jobs per state, and the problems."""
    rules, jobs = LabelRules.of(conversion), conversion.jobs
    folders = {target.parent for job in jobs for target in job.targets}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(f"*{PARTIAL}"):
            left_over.unlink()
    states: Counter[State] = Counter()
    problems = {}
    with (
        closing(run_in_processes(partial(run_job, rules), jobs, processes)) as done,
        bar(desc=conversion.spec.name, total=len(jobs), unit="file") as progress,
    ):
        for job, outcome in done:
            progress.update()
            states[outcome.state] += 1
            if outcome.problem:
                problems[job.label] = outcome.problem
    return states, [problems[label] for label in sorted(problems)]


def _report(conversion: Conversion, states: Counter[State]) -> None:
    spec = conversion.spec
    count = sum(1 for _ in file_names(conversion.labels, {spec.label_suffix}))
    parts = ", ".join(f"{states[state]} {state.value}" for state in State if states[state])
    print(printable(f"{spec.name}: {count} labels in {conversion.labels} ({parts})"), flush=True)
    count += states[State.UNLABELED]
    if spec.expected is not None and count != spec.expected:
        if count > spec.expected:
            verdict = "too many files"
        else:
            verdict = "some files failed" if states[State.FAILED] else "the download is incomplete"
        _warn(spec, f"{count} of {spec.expected} expected labels: {verdict}")


def _warn(spec: DatasetSpec, message: str) -> None:
    print(printable(f"warning: {spec.name}: {message}"), file=sys.stderr, flush=True)
