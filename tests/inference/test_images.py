"""Input images of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cat_seg.errors import UserError
from cat_seg.inference.images import to_rgb

COLOR = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
GRAY = np.repeat(COLOR[..., :1], 3, axis=2)
ALPHA = np.concatenate([COLOR, np.full((4, 6, 1), 9, np.uint8)], axis=2)
FEW = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (COLOR, COLOR),
        (COLOR[..., 0], GRAY),
        (COLOR[..., :1], GRAY),
        (ALPHA, COLOR),
        (Image.fromarray(COLOR), COLOR),
        (Image.fromarray(COLOR[..., 0]), GRAY),
        (Image.fromarray(ALPHA), COLOR),
        (Image.fromarray(FEW).convert("P", palette=Image.Palette.ADAPTIVE), FEW),
        (torch.from_numpy(COLOR).permute(2, 0, 1), COLOR),
        (torch.from_numpy(COLOR).permute(2, 0, 1) / 255, COLOR),
        ((torch.from_numpy(COLOR).permute(2, 0, 1) / 255).double().requires_grad_(), COLOR),
    ],
    ids=[
        *("array", "gray-array", "one-channel", "rgba-array", "pil", "gray-pil", "rgba-pil"),
        *("palette", "uint8-tensor", "float-tensor", "tensor-with-gradient"),
    ],
)
def test_images_in_memory(image, expected):
    found = to_rgb(image)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [str, Path, Image.open])
def test_exif_orientation_is_applied_unless_ignored(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOR).save(tmp_path / "image.png", exif=exif)
    turned = np.rot90(COLOR, k=-1)
    np.testing.assert_array_equal(to_rgb(kind(tmp_path / "image.png")), turned)
    stored = to_rgb(kind(tmp_path / "image.png"), ignore_orientation=True)
    np.testing.assert_array_equal(stored, COLOR)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("https://example.org/a.jpg", "is a URL; download it first"),
        ("data:image/png;base64,AAAA", "is a URL"),
        ("missing.jpg", "cannot read image missing.jpg: No such file"),
        (3, "cannot be of type int; give a path"),
        (b"abc", "cannot be of type bytes"),
        (COLOR / 255, "must be uint8"),
        (COLOR[None], r"not \(1, 4, 6, 3\) uint8"),
        (COLOR[:0], "must be uint8"),
        (Image.new("F", (3, 3)), "mode F has no 8-bit pixels"),
        (Image.new("I;16", (3, 3)), "mode I;16 has no 8-bit pixels"),
        (Image.new("RGB", (0, 3)), "0x3 pixels is empty"),
        (torch.zeros(4, 6, 3), r"tensor must be \(3, height, width\).*not \(4, 6, 3\)"),
        (torch.zeros(3, 4, 6, dtype=torch.int64), r"torch\.int64"),
        (torch.full((3, 4, 6), 255.0), "must be in 0..1, not 255..255"),
        (torch.full((3, 4, 6), torch.nan), "must be in 0..1, not nan..nan"),
    ],
)
def test_other_images_are_refused(image, told):
    with pytest.raises(UserError, match=told):
        to_rgb(image)


def test_a_damaged_pil_image_is_refused(tmp_path):
    Image.fromarray(np.tile(COLOR, (50, 50, 1))).save(tmp_path / "image.jpg")
    content = (tmp_path / "image.jpg").read_bytes()
    (tmp_path / "image.jpg").write_bytes(content[: len(content) // 2])
    with Image.open(tmp_path / "image.jpg") as image, pytest.raises(UserError, match="truncated"):
        to_rgb(image)
