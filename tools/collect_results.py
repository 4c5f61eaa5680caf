#!/usr/bin/env python
"""Print the results table of runs: the same as `hps-seg results`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("results"))
