"""The page on a Hugging Face Space; docs/page.md says which files go there."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

MODEL = os.environ.get("HPS_SEG_MODEL") or "cat-seg-base"

if __name__ == "__main__":
    # It has no release on PyPI, so requirements.txt cannot name it.
    subprocess.run([sys.executable, "tools/install_detectron2.py"], check=True)
    sys.argv = ["hps-seg", "demo", "--model", MODEL, "--host", "0.0.0.0"]
    runpy.run_module("cat_seg.cli.main", run_name="__main__")
