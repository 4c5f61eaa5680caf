"""Scenes: what they hold, and that a seed fixes them."""

from __future__ import annotations

import numpy as np
import pytest

from tools.quickstart.classes import load_classes
from tools.quickstart.drawing import COLORS, GROUNDS, TEXTURES, Shape, draw_class, draw_scene

CLASSES = load_classes()


def test_labels_follow_the_shapes() -> None:
    shapes = [Shape(3, 40.0, 40.0, 20.0), Shape(5, 50.0, 40.0, 12.0)]
    image, label = draw_scene(np.random.default_rng(0), CLASSES.names, 19, shapes, 96)

    assert image.shape == (96, 96, 3) and image.dtype == np.uint8
    assert label.shape == (96, 96) and label.dtype == np.uint8
    assert set(np.unique(label)) == {3, 5, 19}
    assert label[40, 50] == 5  # the later one is on top
    assert label[40, 28] == 3
    assert label[90, 90] == 19


def test_a_shape_has_its_color_and_stays_inside_its_outline() -> None:
    names = ("water", "plain red shape")
    bare, _ = draw_scene(np.random.default_rng(1), names, 0, [], 64)
    image, label = draw_scene(np.random.default_rng(1), names, 0, [Shape(1, 32, 32, 12)], 64)

    red, green, blue = image[label == 1].mean(axis=0)
    assert red > 2 * max(green, blue)
    # Light and noise differ; the ground's blue does not.
    assert np.abs(image[label == 0].mean(axis=0) - bare.mean(axis=(0, 1))).max() < 30


def test_the_radius_is_in_pixels() -> None:
    areas = [
        (
            draw_scene(np.random.default_rng(i), CLASSES.names, 18, [Shape(0, 48, 48, 20)], 96)[1]
            == 0
        )
        .sum()
        .item()
        for i in range(20)
    ]
    assert np.mean(areas) == pytest.approx(np.pi * 20**2, rel=0.15)


def test_part_of_a_shape_may_lie_outside() -> None:
    _, label = draw_scene(np.random.default_rng(2), CLASSES.names, 18, [Shape(0, 0, 0, 20)], 64)
    assert 0 < (label == 0).sum() < 800


def test_the_seed_fixes_every_pixel() -> None:
    def scene(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return draw_scene(rng, CLASSES.names, 21, [Shape(9, 30, 30, 15)], 64)[0]

    assert np.array_equal(scene(4), scene(4))
    assert not np.array_equal(scene(4), scene(5))


@pytest.mark.parametrize("ground", GROUNDS)
def test_grounds_are_told_apart_by_their_color(ground: str) -> None:
    def mean_color(name: str, seed: int) -> np.ndarray:
        return draw_class(np.random.default_rng(seed), name, 64, 64).mean(axis=(0, 1))

    distances = {
        other: np.linalg.norm(mean_color(ground, 0) - mean_color(other, 1)) for other in GROUNDS
    }
    assert min(distances, key=distances.get) == ground


@pytest.mark.parametrize(
    ("texture", "pale"),
    [("plain", 0), ("striped", 0.5), ("checked", 0.5), ("dotted", 0.2), ("ringed", 0.5)],
)
def test_textures_mix_the_color_with_a_pale_one(texture: str, pale: float) -> None:
    canvas = draw_class(np.random.default_rng(3), f"{texture} black shape", 96, 96)
    assert (canvas.mean(axis=2) > 128).mean() == pytest.approx(pale, abs=0.1)


@pytest.mark.parametrize(
    ("vocabulary", "colors", "textures", "grounds", "unseen"),
    [("quickstart", 6, 4, 4, 6), ("quickstart_hard", 8, 5, 6, 8)],
)
def test_every_color_and_texture_is_seen_and_every_pair_has_a_name(
    vocabulary: str, colors: int, textures: int, grounds: int, unseen: int
) -> None:
    classes = load_classes(vocabulary)
    pairs = set()
    for name in classes.names:
        words = set(name.split())
        if name not in GROUNDS:
            pairs.add((*(words & set(COLORS)), *(words & set(TEXTURES))))
    assert len(pairs) == colors * textures == len(classes.names) - grounds

    seen = set(" ".join(classes.seen).split())
    assert [len(seen & set(each)) for each in (COLORS, TEXTURES, GROUNDS)] == [
        colors,
        textures,
        grounds,
    ]
    assert len(classes.unseen) == unseen
    assert classes.seen + classes.unseen == classes.names
