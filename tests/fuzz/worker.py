"""A process that reads damaged files, so that a crash or a hang ends it and not the tests.

It takes lines of JSON, [kind, path], and answers each with one, {"outcome": ..., "told": ...}. A
fork does the work; where it dies the next one takes over at once, with the imports done.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
import traceback
import warnings
from pathlib import Path

from cat_seg.errors import UserError
from tests.fuzz.readers import READERS

MEMORY = 4 * 2**30  # bytes beyond what the imports take


def main() -> None:
    """Serve until the input ends."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what readers print is not an answer
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    while True:
        child = os.fork()
        if child == 0:
            _serve(answers)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return
        _answer(answers, outcome="died", told=f"the interpreter ended with status {code}")


def _serve(answers) -> None:
    faulthandler.enable()
    _answer(answers, outcome="ready", told=str(os.getpid()))
    # Unbuffered: the next fork must find the lines that this one has not read.
    with open(0, "rb", buffering=0, closefd=False) as jobs:
        while line := jobs.readline():
            kind, path = json.loads(line)
            try:
                READERS[kind](Path(path))
                _answer(answers, outcome="answered", told="")
            except UserError as error:
                _answer(answers, outcome="refused", told=str(error))
            except BaseException:
                _answer(answers, outcome="failed", told=traceback.format_exc())


def _answer(stream, **answer: str) -> None:
    print(json.dumps(answer), file=stream, flush=True)


if __name__ == "__main__":
    main()
    sys.exit(0)
