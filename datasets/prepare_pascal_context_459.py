#!/usr/bin/env python
"""Make the label maps of the benchmark PC-459: PASCAL Context, validation.

See datasets/README.md for what to download and where to put it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.data.preparation import pascal_context, prepare

if __name__ == "__main__":
    prepare(pascal_context.find_459, __doc__)
