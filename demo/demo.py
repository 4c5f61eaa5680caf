"""Segment images into the classes you name, and draw the result: the same as `hps-seg segment`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("segment"))
