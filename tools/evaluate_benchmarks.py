#!/usr/bin/env python
"""Evaluate weights on every benchmark on disk: the same as `hps-seg evaluate`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("evaluate"))
