"""What `import cat_seg` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from detectron2.modeling import META_ARCH_REGISTRY

import cat_seg


def test_every_public_name_is_there():
    for name in cat_seg.__all__:
        assert getattr(cat_seg, name) is not None
    assert set(cat_seg.__all__) <= set(dir(cat_seg))
    with pytest.raises(AttributeError, match="no_such_name"):
        cat_seg.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    ["from cat_seg import add_cat_seg_config", "import cat_seg.engine", "import cat_seg.predictor"],
)
def test_any_way_in_registers_the_models(statement):
    code = (
        f"{statement}\nfrom detectron2.modeling import META_ARCH_REGISTRY as r\n"
        "print('CATSeg' in r and 'EnhancedCATSeg' in r)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr


def test_the_version_is_the_installed_one():
    major, minor, patch = cat_seg.__version__.split(".")
    assert (major + minor + patch).isdigit()
    assert "CATSeg" in META_ARCH_REGISTRY
