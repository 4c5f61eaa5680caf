"""Padding, restoring the image's size, and the sliding window, each written plainly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cat_seg.modeling.processing import pad, resize, restore, sliding_window
from cat_seg.utils.sizes import padded_size
from tests.tiny import image


@pytest.mark.parametrize(
    ("size", "divisibility", "expected"),
    [
        ((20, 30), 32, (32, 32)),
        ((64, 96), 32, (64, 96)),
        ((65, 1), 32, (96, 32)),
        ((333, 500), 32, (352, 512)),
        ((333, 500), 0, (333, 500)),
        ((333, 500), -1, (333, 500)),
        ((333, 500), 1, (333, 500)),
    ],
)
def test_padded_size(size, divisibility, expected):
    assert padded_size(size, divisibility) == expected


def test_pad_at_the_right_and_the_bottom():
    image = torch.arange(6.0).view(1, 2, 3) + 1
    padded = pad(image, (4, 5), value=9)
    assert padded.shape == (1, 4, 5)
    assert torch.equal(padded[:, :2, :3], image)
    assert (padded[:, 2:] == 9).all() and (padded[:, :, 3:] == 9).all()
    labels = pad(torch.ones(2, 3, dtype=torch.long), (2, 4), value=255)
    assert labels.dtype == torch.long and labels[:, 3].tolist() == [255, 255]


def ramps(padded, cells=96):
    """Probabilities (2, cells, cells) over a padded image: its x and its y, as shares of it."""
    share = (torch.arange(cells) + 0.5) / cells
    return torch.stack([share.expand(cells, cells), share[:, None].expand(cells, cells)])


@pytest.mark.parametrize(
    ("size", "output"),
    [
        ((100, 70), (100, 70)),
        ((100, 70), (200, 140)),
        ((70, 100), (35, 50)),
        ((33, 200), (66, 300)),
        ((64, 96), (64, 96)),  # no padding
        ((64, 96), (128, 64)),
    ],
)
def test_restore_keeps_the_content_where_it_was(size, output):
    padded = padded_size(size, 32)
    found = restore(ramps(padded).logit(), padded, size, output)
    assert found.shape == (2, *output)
    across = (torch.arange(output[1]) + 0.5) / output[1] * size[1] / padded[1]
    down = (torch.arange(output[0]) + 0.5) / output[0] * size[0] / padded[0]
    # The border of a bilinear map is flat: half a cell of the map, half a pixel of the image.
    tolerance = 0.5 / 96 + 1.0 / min(padded) * (size != padded)
    assert (found[0] - across).abs().max() <= tolerance
    assert (found[1] - down[:, None]).abs().max() <= tolerance
    inner = (slice(output[0] // 4, output[0] // 2), slice(output[1] // 4, output[1] // 2))
    torch.testing.assert_close(found[0][inner], across.expand(output)[inner], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        found[1][inner], down[:, None].expand(output)[inner], atol=1e-4, rtol=0
    )


def test_restore_is_crop_after_upsampling_then_resize():
    """The padding is cut from the padded image, not from the coarse map."""
    torch.manual_seed(0)
    probabilities = torch.rand(3, 24, 24)
    padded = F.interpolate(probabilities[None], (128, 96), mode="bilinear", align_corners=False)
    expected = F.interpolate(
        padded[..., :100, :70], (50, 140), mode="bilinear", align_corners=False
    )
    found = restore(probabilities.logit(), (128, 96), (100, 70), (50, 140))
    torch.testing.assert_close(found, expected[0], atol=1e-6, rtol=1e-5)


def plain_sliding_window(image, predict):
    """The published protocol, one window after the other."""

    def bilinear(maps, size):
        return F.interpolate(maps[None], (size, size), mode="bilinear", align_corners=False)[0]

    stride = int(384 * (1 - 0.333))
    assert stride == 256
    canvas = bilinear(image, 640)
    total, count = 0, torch.zeros(640, 640)
    for top in (0, stride):
        for left in (0, stride):
            window = canvas[:, top : top + 384, left : left + 384]
            assert window.shape[-2:] == (384, 384)
            probabilities = bilinear(predict(window[None])[0], 384).sigmoid()
            placed = torch.zeros(len(probabilities), 640, 640)
            placed[:, top : top + 384, left : left + 384] = probabilities
            total = total + placed
            count[top : top + 384, left : left + 384] += 1
    assert count.min() == 1 and count.max() == 4
    whole = bilinear(predict(bilinear(image, 384)[None])[0], 384).sigmoid()
    return (total / count + bilinear(whole, 640)) / 2


@pytest.mark.parametrize("size", [(64, 48), (20, 30), (700, 500), (1, 2560), (2560, 1)])
@torch.no_grad()
def test_sliding_window_follows_the_protocol(size):
    torch.manual_seed(0)
    predict = nn.Conv2d(3, 2, 4, stride=4)  # logits of 96x96
    nn.init.normal_(predict.weight)
    picture = image(*size).float() / 255 - 0.5
    found = sliding_window(picture, predict)
    assert found.shape == (2, 640, 640)
    expected = plain_sliding_window(picture, predict)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    restored = F.interpolate(expected[None], (30, 50), mode="bilinear", align_corners=False)[0]
    found = sliding_window(picture, predict, (30, 50))
    torch.testing.assert_close(found, restored, atol=1e-5, rtol=1e-5)


def test_the_windows_cover_the_canvas_with_overlap():
    seen = []

    def predict(windows):
        seen.append(windows)
        return windows[:, :1, ::4, ::4]

    sliding_window(torch.rand(3, 640, 640), predict)
    windows = torch.cat(seen)
    assert windows.shape == (5, 3, 384, 384)
    torch.testing.assert_close(windows[0][:, :, 256:], windows[1][:, :, :128])
    torch.testing.assert_close(windows[0][:, 256:], windows[2][:, :128])


def test_resize_is_bilinear_without_aligned_corners():
    maps = torch.tensor([[[[0.0, 1.0]]]])
    assert resize(maps, (1, 4)).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
