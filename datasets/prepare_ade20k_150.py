#!/usr/bin/env python
"""Make the label maps of the benchmark A-150: ADE20K, scene parsing challenge, validation.

See datasets/README.md for what to download and where to put it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.data.preparation import ade20k, prepare

if __name__ == "__main__":
    prepare(ade20k.find_challenge, __doc__)
