#!/usr/bin/env python
"""Draw the hyperbolic radius of CLIP's embeddings: the same as `hps-seg radius`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("radius"))
