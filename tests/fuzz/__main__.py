"""The long run: rounds of damaged files, each round with a seed of its own, until time is up.

    python -m tests.fuzz --minutes 10 [--first-seed N]

Files that break a reader are kept in output/fuzz, with what they did in a .log file beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import seed

from cat_seg.utils.paths import REPO_ROOT
from tests.fuzz.properties import KINDS, FaultError, damaged_files_are_answered_or_refused
from tests.fuzz.session import Session

OUTPUT = REPO_ROOT / "output" / "fuzz"


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns 1 if a file broke a reader."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="when to stop (default: 10)")
    parser.add_argument("--first-seed", type=int, default=0, help="of the first round (default: 0)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    args = parser.parse_args(argv)
    faults: set[Path] = set()
    with TemporaryDirectory() as folder, Session(Path(folder)) as session:
        end = time.monotonic() + 60 * args.minutes
        for number in count(args.first_seed):
            for kind in KINDS:
                if time.monotonic() > end:
                    print(f"{len(faults)} faults" + (f" in {args.output}" if faults else ""))
                    return int(bool(faults))
                if (fault := _round(kind, number, session)) is not None:
                    faults.add(_keep(kind, number, fault, args.output))


def _round(kind: str, number: int, session: Session) -> FaultError | None:
    session.counts.clear()
    fault = None
    try:
        seed(number)(damaged_files_are_answered_or_refused(kind, session, "long"))()
    except FaultError as error:
        fault = error
    counts = ", ".join(f"{value} {outcome}" for outcome, value in sorted(session.counts.items()))
    print(f"seed {number}, {kind} files: {counts}", flush=True)
    return fault


def _keep(kind: str, number: int, fault: FaultError, folder: Path) -> Path:
    """Write what broke a reader; returns the file."""
    digest = hashlib.sha256(fault.content).hexdigest()[:8]
    path = folder / f"{kind}_{digest}_{fault.name}"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fault.content)
    told = f"seed {number}: {kind} file {fault.outcome.kind}\n{fault.outcome.told}\n"
    path.with_name(f"{path.name}.log").write_text(told)
    print(f"  {path}: {fault.outcome.kind}: {fault.outcome.told.strip().splitlines()[-1]}")
    return path


if __name__ == "__main__":
    sys.exit(main())
