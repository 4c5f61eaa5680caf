#!/usr/bin/env python
"""Train a model, or evaluate one with --eval-only: the same as `hps-seg train`."""

import sys

from cat_seg.cli.main import run_command


def main() -> int:
    """Run on the arguments in sys.argv; returns the exit status."""
    return run_command("train")


if __name__ == "__main__":
    sys.exit(main())
