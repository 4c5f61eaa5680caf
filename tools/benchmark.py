#!/usr/bin/env python
"""Measure time, arithmetic and memory of a model, by stage; see --help and docs/performance.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.errors import one_line_errors
from tools.benchmarking import report
from tools.benchmarking.counting import run_count
from tools.benchmarking.dataload import run_loader
from tools.benchmarking.ddp import run_ddp
from tools.benchmarking.experiment import run_model
from tools.benchmarking.options import Options, parse
from tools.benchmarking.start import run_start
from tools.benchmarking.sweep import run_sweep

# All other modes use run_model.
EXPERIMENTS = {"count": run_count, "ddp": run_ddp, "dataload": run_loader, "start": run_start}
INTERRUPTED = 130


def note(line: str) -> None:
    """Print progress on stderr."""
    print(line, file=sys.stderr, flush=True)


def run(options: Options) -> None:
    """Measure, print, and write --output."""
    if options.compare:
        print(report.comparison(*map(report.read, options.compare)))
        return
    if options.sweep:
        run_sweep(options)
        return
    experiment = EXPERIMENTS.get(options.mode, run_model)
    result = {
        "options": report.described(options),
        "environment": report.environment(options),
        **experiment(options, note),
    }
    if options.output is not None:
        report.write(result, options.output)
    print(report.text(result))


@one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark that the command line asks for."""
    try:
        run(parse(argv))
    except KeyboardInterrupt:
        note("stopped; run the same --sweep again to resume")
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
