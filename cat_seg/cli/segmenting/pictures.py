"""Segmenting a batch of image files and writing the pictures, masks and records of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cat_seg.errors import UserError
from cat_seg.inference import Result, Segmenter
from cat_seg.inference.result import encode
from cat_seg.utils.files import atomic_write


@dataclass(frozen=True)
class Job:
    """An image file, and the name that its pictures start with."""

    path: Path
    name: str


@dataclass(frozen=True)
class Drawing:
    """What to write of each image.

    Attributes:
        output: folder for all files.
        confidence: pixels of lower confidence are unknown; None for no threshold.
        masks: write NAME_mask.png, the labels.
        records: write NAME_result.json, the areas and confidences of the classes.
    """

    output: Path
    confidence: float | None = None
    masks: bool = False
    records: bool = False

    def draw(self, segmenter: Segmenter, jobs: Sequence[Job]) -> list[UserError]:
        """Segment images in one batch and write their files, each whole or not at all.

        Returns:
            The errors of the images that were skipped, in order.

        Raises:
            UserError: a file cannot be written.
        """
        errors: dict[int, UserError] = {}
        results = segmenter.segment(
            (job.path for job in jobs),
            batch_size=len(jobs),
            threshold=self.confidence,
            on_error=errors.__setitem__,
        )
        for result in results:
            job = jobs[result.index]
            try:
                files = self._files(result)
            except MemoryError:
                errors[result.index] = UserError(
                    f"image {job.path}: not enough memory to draw it; resize the image"
                )
                continue
            for end, content in files.items():
                write(self.output / f"{job.name}{end}", content)
        return [errors[index] for index in sorted(errors)]

    def _files(self, result: Result) -> dict[str, bytes]:
        """Return the content of the files of an image by what follows NAME."""
        files = {".png": encode(result.overlay())}
        if self.masks:
            files["_mask.png"] = encode(result.mask())
        if self.records:
            files["_result.json"] = json_bytes(result.to_dict())
        return files


def json_bytes(value: object) -> bytes:
    """Return a value as the content of a JSON file."""
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    return text.encode(errors="backslashreplace")


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with naming(path), atomic_write(path) as file:
        file.write(content)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a UserError that names the path to write."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; see --output") from error
