#!/usr/bin/env python
"""Make the label maps of the benchmarks PAS-20 and PAS-20b: PASCAL VOC 2012, validation.

See datasets/README.md for what to download and where to put it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.data.preparation import prepare, voc

if __name__ == "__main__":
    prepare(voc.find_conversions, __doc__)
