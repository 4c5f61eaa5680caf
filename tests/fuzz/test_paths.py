"""Paths that cannot be, for everything that takes one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cat_seg.checkpoint.formats import checkpoint_holds_clip
from cat_seg.cli.segment import find_images
from cat_seg.data import load_vocabulary, parse_vocabulary, read_image, read_label
from cat_seg.engine import load_config
from cat_seg.errors import UserError


def images_of(path: str) -> list[Path]:
    return find_images([path], Path("pictures"))


@pytest.mark.parametrize("path", ["~nobody/x", "a\0b", "x" * 5000, "x/" * 3000, "/dev/null/x"])
@pytest.mark.parametrize(
    ("read", "suffix"),
    [
        (load_config, ".yaml"),
        (load_vocabulary, ".json"),
        (parse_vocabulary, ".txt"),
        (checkpoint_holds_clip, ".pth"),
        (images_of, ".png"),
        (lambda path: read_image(path, "RGB"), ".png"),
        (read_label, ".png"),
    ],
    ids=["config", "list", "vocabulary", "weights", "demo", "image", "label"],
)
def test_a_path_that_cannot_be_is_one_line(read, suffix, path):
    with pytest.raises(UserError) as told:
        read(path + suffix)
    assert "\n" not in str(told.value)
