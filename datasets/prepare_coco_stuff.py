#!/usr/bin/env python
"""Make the label maps of COCO-Stuff 164k, training and validation (171 classes).

See datasets/README.md for what to download and where to put it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.data.preparation import coco_stuff, prepare

if __name__ == "__main__":
    prepare(coco_stuff.find_conversions, __doc__)
