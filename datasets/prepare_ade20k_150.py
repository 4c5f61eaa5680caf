#!/usr/bin/env python
"""Make the label maps of the benchmark A-150: ADE20K, scene parsing challenge, validation.

datasets/README.md says what to download and where it goes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cat_seg.data.preparation import ade20k, prepare

if __name__ == "__main__":
    prepare(ade20k.find_challenge, __doc__)
