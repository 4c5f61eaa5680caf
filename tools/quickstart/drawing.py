"""Draw the quickstart's images: shapes with a color and a texture on a textured ground.

All randomness comes from a `numpy.random.Generator`, so a seed fixes every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (205, 35, 40),
    "yellow": (235, 200, 30),
    "green": (25, 165, 70),
    "blue": (30, 60, 205),
    "purple": (140, 50, 170),
    "black": (30, 30, 30),
    "orange": (235, 120, 25),
    "cyan": (40, 190, 200),
}
PALE = np.array([245.0, 242.0, 235.0])  # second color of every texture
TEXTURE_PERIOD = (8.0, 12.0)  # pixels


def _grid(height: int, width: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel coordinates in axes rotated by `angle` radians, two arrays (height, width)."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _texture_waves(rng: Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two perpendicular waves in -1..1 with random direction, period and phases."""
    frequency = 2 * np.pi / rng.uniform(*TEXTURE_PERIOD)
    u, v = _grid(height, width, rng.uniform(0, np.pi))
    phase_u, phase_v = rng.uniform(0, 2 * np.pi, 2)
    return np.sin(frequency * u + phase_u), np.sin(frequency * v + phase_v)


def _plain(rng: Generator, height: int, width: int) -> np.ndarray:
    return np.zeros((height, width), bool)


def _striped(rng: Generator, height: int, width: int) -> np.ndarray:
    return _texture_waves(rng, height, width)[0] > 0


def _checked(rng: Generator, height: int, width: int) -> np.ndarray:
    wave_u, wave_v = _texture_waves(rng, height, width)
    return (wave_u > 0) != (wave_v > 0)


def _dotted(rng: Generator, height: int, width: int) -> np.ndarray:
    wave_u, wave_v = _texture_waves(rng, height, width)
    return wave_u + wave_v > 0.8


def _ringed(rng: Generator, height: int, width: int) -> np.ndarray:
    frequency = 2 * np.pi / rng.uniform(*TEXTURE_PERIOD)
    x, y = _grid(height, width, 0.0)
    middle = rng.uniform(0.3, 0.7, 2) * (width, height)
    return np.sin(frequency * np.hypot(x - middle[0], y - middle[1])) > 0


def _noise(rng: Generator, height: int, width: int, blur: tuple[float, float]) -> np.ndarray:
    """Return unit-variance noise (height, width), blurred with sigma (x, y) in pixels."""
    noise = rng.standard_normal((height, width), dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=blur[0], sigmaY=blur[1])
    return noise / (noise.std() + 1e-6)


def _grass(rng: Generator, height: int, width: int) -> np.ndarray:
    blades = _noise(rng, height, width, (0.6, 3.0))[..., None]
    return np.array([80.0, 120.0, 45.0]) + blades * np.array([20.0, 26.0, 14.0])


def _sand(rng: Generator, height: int, width: int) -> np.ndarray:
    grain = _noise(rng, height, width, (0.5, 0.5)) + _noise(rng, height, width, (6.0, 6.0))
    return np.array([205.0, 180.0, 130.0]) + grain[..., None] * np.array([11.0, 11.0, 10.0])


def _water(rng: Generator, height: int, width: int) -> np.ndarray:
    bend = 1.2 * _noise(rng, height, width, (8.0, 3.0))
    _, v = _grid(height, width, rng.uniform(-0.15, 0.15))
    waves = np.sin(2 * np.pi * v / rng.uniform(9, 14) + bend)[..., None]
    return np.array([70.0, 135.0, 165.0]) + waves * np.array([24.0, 24.0, 18.0])


def _brick(rng: Generator, height: int, width: int) -> np.ndarray:
    brick_height, brick_width = rng.uniform(8, 10), rng.uniform(18, 22)
    y, x = np.mgrid[:height, :width] + rng.uniform(0, 40, (2, 1, 1))
    row = np.floor(y / brick_height)
    along = x + (row % 2) * brick_width / 2
    mortar = (y % brick_height < 1.6) | (along % brick_width < 1.6)
    shade = 12 * _noise(rng, height, width, (1.0, 1.0))[..., None]
    bricks = np.where(mortar[..., None], [185.0, 178.0, 168.0], [150.0, 78.0, 58.0])
    return bricks + shade


def _snow(rng: Generator, height: int, width: int) -> np.ndarray:
    drifts = _noise(rng, height, width, (9.0, 5.0))[..., None]
    return np.array([222.0, 228.0, 238.0]) + drifts * np.array([9.0, 8.0, 5.0])


def _wood(rng: Generator, height: int, width: int) -> np.ndarray:
    u, _ = _grid(height, width, rng.uniform(-0.2, 0.2))
    grain = np.sin(2 * np.pi * u / rng.uniform(5, 8) + _noise(rng, height, width, (2.0, 14.0)))
    return np.array([120.0, 84.0, 50.0]) + grain[..., None] * np.array([18.0, 13.0, 8.0])


class Shape(NamedTuple):
    """A shape to draw: class index, and center and mean radius in pixels."""

    index: int
    x: float
    y: float
    radius: float


Draw = Callable[[Generator, int, int], np.ndarray]
TEXTURES: dict[str, Draw] = {
    "plain": _plain,
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
    "ringed": _ringed,
}
GROUNDS: dict[str, Draw] = {
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "brick": _brick,
    "snow": _snow,
    "wood": _wood,
}


def draw_class(rng: Generator, name: str, height: int, width: int) -> np.ndarray:
    """Draw a canvas of one class.

    Args:
        name: a ground ("grass"), or a shape's name that contains one color and one texture, in any
            order ("red striped shape").

    Returns:
        Float RGB (height, width, 3), about 0..255.
    """
    if name in GROUNDS:
        return GROUNDS[name](rng, height, width)
    words = name.split()
    color = next(np.array(COLORS[word], float) for word in words if word in COLORS)
    texture = next(TEXTURES[word] for word in words if word in TEXTURES)
    color = color + rng.normal(0, 10, 3)
    return np.where(texture(rng, height, width)[..., None], PALE, color)


def _outline(rng: Generator, shape: Shape) -> np.ndarray:
    """Return a random closed outline, as integer points (N, 1, 2) in OpenCV's format."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = np.arange(2, 6)
    amplitudes = rng.normal(0, 0.12, waves.size) / np.sqrt(waves / 2)
    phases = rng.uniform(0, 2 * np.pi, waves.size)
    reach = 1 + (amplitudes * np.cos(np.outer(angles, waves) + phases)).sum(1)
    reach = shape.radius * np.clip(reach, 0.5, 1.4)
    points = np.stack([shape.x + np.cos(angles) * reach, shape.y + np.sin(angles) * reach], 1)
    return np.round(points).astype(np.int32)[:, None]


def draw_scene(
    rng: Generator,
    classes: Sequence[str],
    ground: int,
    shapes: Sequence[Shape],
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw shapes on a ground, later ones over earlier ones, with uneven lighting.

    Args:
        classes: all class names.
        ground: class index of the ground.
        shapes: shapes to draw; parts outside the image are clipped.
        size: side of the image in pixels.

    Returns:
        RGB image uint8 (size, size, 3) and its class indices uint8 (size, size).
    """
    image = draw_class(rng, classes[ground], size, size)
    label = np.full((size, size), ground, np.uint8)
    for shape in shapes:
        inside = cv2.fillPoly(np.zeros((size, size), np.uint8), [_outline(rng, shape)], 1) > 0
        image[inside] = draw_class(rng, classes[shape.index], size, size)[inside]
        label[inside] = shape.index
    light = cv2.resize(rng.normal(1, 0.1, (3, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    image = image * light[..., None] + rng.normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), label


def restyle(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Make an RGB image uint8 (H, W, 3) look like a photo at dusk: dim, bluish, soft and grainy."""
    dim = rng.uniform(0.45, 0.65) * np.array([0.85, 0.95, 1.25])
    soft = cv2.GaussianBlur(image, (0, 0), sigmaX=rng.uniform(0.6, 1.1)).astype(np.float32)
    gray = soft.mean(axis=2, keepdims=True)
    faded = 0.75 * soft + 0.25 * gray
    return np.clip(faded * dim + rng.normal(0, 9, image.shape), 0, 255).astype(np.uint8)
