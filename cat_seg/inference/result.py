"""The answer for one image, with everything that is drawn or saved of it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cat_seg.errors import UserError
from cat_seg.utils.files import atomic_write
from cat_seg.visualization.heat_map import draw_heat_map
from cat_seg.visualization.overlay import draw_overlay, mask_image

# zlib level; higher levels take three times as long on photographs and save only 5%.
COMPRESSION = 4


@dataclass(frozen=True, eq=False)
class Result:
    """The segmentation of an image of H x W pixels into T classes.

    winner: (H, W) int64, the most probable class of each pixel, an index into `names`.
    names: the T class names.
    confidence: (H, W) float32 in 0..1, probability of that class.
    margin: (H, W) float32 in 0..1, its distance to the probability of the second class; with one
        class, the probability.
    entropy: (H, W) float32 in 0..1, entropy over the classes, 1 if all are equally probable.
    image: (H, W, 3) uint8 RGB, as it was segmented.
    source: the image's path, None if it was not a file.
    index: position of the image among those of the call.
    threshold: pixels of lower confidence are unknown; None if all pixels have a class.
    """

    winner: np.ndarray = field(repr=False)
    names: tuple[str, ...]
    confidence: np.ndarray = field(repr=False)
    margin: np.ndarray = field(repr=False)
    entropy: np.ndarray = field(repr=False)
    image: np.ndarray = field(repr=False)
    source: Path | None = None
    index: int = 0
    threshold: float | None = None

    @property
    def unknown(self) -> int:
        """The label of unknown pixels: 255, or 65535 if there are more than 255 classes."""
        return 255 if len(self.names) <= 255 else 65535

    @cached_property
    def labels(self) -> np.ndarray:
        """(H, W) int64 indices into `names`, and `unknown` where confidence is below threshold."""
        if self.threshold is None:
            return self.winner
        return np.where(self.confidence < self.threshold, self.unknown, self.winner)

    def with_threshold(self, threshold: float | None) -> Result:
        """Return this result with another threshold; nothing is computed again.

        Raises:
            UserError: the threshold is not a number from 0 to 1.
        """
        return replace(self, threshold=check_threshold(threshold))

    def areas(self) -> dict[str, float]:
        """Return the share of pixels (0..1) of each class in `names` order, and of "unknown".

        "unknown" is there if there is a threshold.
        """
        counts = np.bincount(self.labels.ravel(), minlength=self.unknown + 1) / self.labels.size
        shares = dict(zip(self.names, counts.tolist(), strict=False))
        if self.threshold is not None:
            shares["unknown"] = float(counts[self.unknown])
        return shares

    def to_dict(self) -> dict[str, Any]:
        """Return source, size, areas and mean confidence as JSON values; see docs/inference.md."""
        height, width = self.labels.shape
        classes = []
        for index, (name, area) in enumerate(zip(self.names, self.areas().values(), strict=False)):
            if area:
                mean = float(self.confidence[self.labels == index].mean(dtype=np.float64))
                classes.append({"index": index, "name": name, "area": area, "confidence": mean})
        return {
            "source": None if self.source is None else str(self.source),
            "width": width,
            "height": height,
            "confidence": float(self.confidence.mean(dtype=np.float64)),
            "entropy": float(self.entropy.mean(dtype=np.float64)),
            "threshold": self.threshold,
            "unknown": self.areas().get("unknown", 0.0),
            "classes": sorted(classes, key=lambda one: -one["area"]),
        }

    def overlay(self, alpha: float = 0.55) -> Image.Image:
        """Draw the classes over the image, with a legend; unknown pixels are gray.

        Args:
            alpha: opacity of the class colors, 0..1.
        """
        unknown = None if self.threshold is None else self.unknown
        return Image.fromarray(draw_overlay(self.image, self.labels, self.names, alpha, unknown))

    def mask(self) -> Image.Image:
        """Return the labels as an image whose pixel values they are.

        A palette image with the colors of `overlay`, or 16-bit gray if a value exceeds 255.
        """
        unknown = None if self.threshold is None else self.unknown
        return mask_image(self.labels, len(self.names), unknown)

    def confidence_map(self) -> Image.Image:
        """Draw the confidence as a heat map with a color bar."""
        return draw_heat_map(self.confidence, "confidence")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the overlay to an image file; its suffix says the format.

        Raises:
            UserError: the file cannot be written.
        """
        write_picture(self.overlay(), Path(path))

    def save_mask(self, path: str | os.PathLike[str]) -> None:
        """Write the mask to a PNG file.

        Raises:
            UserError: the file cannot be written, or its name does not end in .png.
        """
        if Path(path).suffix.lower() != ".png":
            raise UserError(f"cannot write the mask {path}: masks are PNG files; end it in .png")
        write_picture(self.mask(), Path(path))

    def show(self) -> None:
        """Show the overlay: in a notebook below the cell, else in the system's image viewer."""
        ipython = sys.modules.get("IPython")  # a notebook has imported it
        if ipython is not None and ipython.get_ipython() is not None:
            ipython.display.display(self)
        else:
            self.overlay().show()

    def _repr_png_(self) -> bytes:
        """Return the overlay as PNG; notebooks show it for a result at the end of a cell."""
        return encode(self.overlay())


def check_threshold(threshold: float | None) -> float | None:
    """Return a threshold as float.

    Raises:
        UserError: it is neither None nor a number from 0 to 1.
    """
    if threshold is None:
        return None
    try:
        value = float(threshold)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 <= value <= 1:
        raise UserError(f"threshold is {threshold!r}; give a number from 0 to 1")
    return value


def encode(picture: Image.Image, suffix: str = ".png") -> bytes:
    """Return the content of an image file.

    Raises:
        UserError: Pillow writes no such files, or not of this kind of picture.
    """
    buffer = BytesIO()
    formats = Image.registered_extensions()
    if suffix.lower() not in formats:
        raise UserError(
            f"pictures cannot be written as {suffix or 'files without suffix'}; use .png"
        )
    options = {"compress_level": COMPRESSION} if suffix.lower() == ".png" else {}
    try:
        picture.save(buffer, format=formats[suffix.lower()], **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"pictures cannot be written as {suffix}: {error}; use .png") from error
    return buffer.getvalue()


def write_picture(picture: Image.Image, path: Path) -> None:
    """Write an image file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    content = encode(picture, path.suffix)
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
