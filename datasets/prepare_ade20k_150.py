#!/usr/bin/env python
"""Make the label maps of A-150 and its training set: ADE20K, scene parsing challenge.

See datasets/README.md for what to download and where to put it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.data.preparation import ade20k, prepare

if __name__ == "__main__":
    prepare(ade20k.find_challenge, __doc__)
