"""Copies configs/ and datasets/ into the wheel; everything else is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = (
    "configs/*.yaml",
    "configs/*.json",
    "datasets/*.json",
    "datasets/*.txt",
    "datasets/mess/*.json",
    "datasets/mess/classes/*.json",
    "datasets/raw_ids/*.json",
)


class BuildWithData(build_py):
    """Adds the shipped files to the package, where `cat_seg.utils.paths` looks for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the checkout has them
            return
        root = Path(__file__).parent
        for pattern in SHIPPED:
            for file in sorted(root.glob(pattern)):
                target = Path(self.build_lib, "cat_seg", "shipped", file.relative_to(root))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


setup(cmdclass={"build_py": BuildWithData})
