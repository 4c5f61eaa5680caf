"""Segment images into the classes you name, and draw the result."""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import chain, count
from pathlib import Path

import numpy as np
from detectron2.utils.logger import setup_logger
from PIL import Image

from cat_seg.data import IMAGE_SUFFIXES, parse_vocabulary
from cat_seg.engine import load_config
from cat_seg.errors import UserError, one_line_errors, printable
from cat_seg.predictor import Predictor, read_rgb
from cat_seg.utils.files import atomic_write
from cat_seg.utils.paths import resolve
from cat_seg.utils.processes import status_of
from cat_seg.utils.progress import bar
from cat_seg.visualization.overlay import draw_overlay, mask_image

# Maximum bytes in a picture's name. Most file systems allow 255, including what is appended to it.
LONGEST_NAME = 200
# zlib level; higher levels take three times as long on photographs and save only 5%.
COMPRESSION = 4
SOME_SKIPPED = 1  # exit status
EXAMPLE = """\
example:
  %(prog)s --config-file configs/vitb_384.yaml --input photos/ --output pictures \\
      --vocabulary "cat, grass, sky" --opts MODEL.WEIGHTS model_base.pth
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help='image files, folders of images, or quoted patterns ("photos/**/*.jpg")',
    )
    parser.add_argument("--input", nargs="+", action="extend", default=[], help="more images")
    parser.add_argument("--config-file", required=True, help="model config; see configs/")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, help="folder for the output images"
    )
    parser.add_argument(
        "-v",
        "--vocabulary",
        help='the classes: "cat, dog", a .json or .txt file, or the name of a shipped list '
        '(ade150); a class that looks like a file or a list needs a comma ("ade151,"); '
        "default: the classes of the config",
    )
    parser.add_argument(
        "--save-masks",
        action="store_true",
        help="also write the labels as PNG (pixel value = index in classes.json)",
    )
    parser.add_argument(
        "--opts",
        nargs="*",
        default=[],
        metavar="KEY VALUE",
        help="config overrides, such as MODEL.WEIGHTS model.pth MODEL.DEVICE cpu",
    )
    args = parser.parse_args(argv)
    args.input = [*args.images, *args.input]
    if not args.input:
        parser.error("give at least one image, folder or pattern")
    return args


def find_images(inputs: Sequence[str], output: Path) -> list[Path]:
    """List the image files that the inputs refer to, each once.

    Files directly in `output` are skipped as pictures from earlier runs.

    Raises:
        UserError: an input matches no image, or a folder cannot be read.
    """
    found: dict[str, Path] = {}
    for text in inputs:
        files = [file for file in _expand(text) if _real(file.parent) != _real(output)]
        if not files:
            raise UserError(
                f"--input {text}: no images found outside the output folder; "
                'give image files, folders of images, or a quoted pattern like "photos/*.jpg"'
            )
        for file in files:
            found.setdefault(_real(file), file)
    return list(found.values())


def _real(path: Path) -> str:
    return os.path.realpath(path)  # unlike Path.resolve, does not raise for circular links


def _expand(text: str) -> Iterator[Path]:
    try:
        path = resolve(text)
        if path.is_file():
            yield path
            return
        is_folder = path.is_dir()
    except (OSError, RuntimeError) as error:  # RuntimeError: "~name" for an unknown user
        raise UserError(f"--input {text}: {getattr(error, 'strerror', None) or error}") from error
    pattern = os.path.expanduser(text)
    for match in [path] if is_folder else map(Path, sorted(glob.glob(pattern, recursive=True))):
        try:
            files = sorted(match.iterdir()) if match.is_dir() else [match]
            files = [file for file in files if not file.is_dir()]
        except OSError as error:
            raise UserError(f"--input {text}: cannot read {match}: {error.strerror}") from error
        for file in files:
            # Only explicitly named files, handled above, are tried whatever their suffix.
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
                yield file


def picture_names(images: Sequence[Path]) -> list[str]:
    """Name the picture of each image after its stem, with a number added if the name is taken.

    All NAME and NAME_mask are distinct, even on case-insensitive file systems. Long stems are
    truncated to leave room for what is appended.
    """
    taken: set[str] = set()
    names = []
    for stem in (_cut(image.stem) for image in images):
        for name in chain([stem], (f"{stem}_{number}" for number in count(2))):
            files = {name.casefold(), f"{name}_mask".casefold()}
            if not files & taken:
                break
        taken |= files
        names.append(name)
    return names


def _cut(stem: str) -> str:
    while len(os.fsencode(stem)) > LONGEST_NAME:
        stem = stem[:-1]
    return stem


def run(args: argparse.Namespace) -> int:
    """Segment all images and return the number skipped; the reasons are printed on stderr.

    Raises:
        UserError: the arguments, the model or the output folder are invalid.
    """
    images = find_images(args.input, args.output)
    vocabulary = None if args.vocabulary is None else parse_vocabulary(args.vocabulary)
    cfg = load_config(args.config_file, args.opts)
    with _naming(args.output):
        args.output.mkdir(parents=True, exist_ok=True)
    predictor = Predictor(cfg, vocabulary)
    if args.save_masks:
        content = json.dumps(predictor.vocabulary, ensure_ascii=False, indent=2) + "\n"
        _write(args.output / "classes.json", content.encode(errors="backslashreplace"))

    skipped = 0
    progress = bar(iterable=images, unit="image")
    for path, name in zip(progress, picture_names(images), strict=True):
        try:
            image = read_rgb(str(path), cfg.INPUT.IGNORE_EXIF_ORIENTATION)
        except UserError as error:
            progress.write(f"skipped: {error}", file=sys.stderr)
            skipped += 1
            continue
        try:
            pictures = _pictures(image, predictor, args.save_masks)
        except UserError as error:
            progress.write(f"skipped: image {printable(path)}: {error}", file=sys.stderr)
            skipped += 1
            continue
        for end, picture in pictures.items():
            _write(args.output / f"{name}{end}.png", picture)
    drawn = len(images) - skipped
    print(printable(f"wrote {drawn} of {len(images)} images to {args.output}"))
    return skipped


def _pictures(image: np.ndarray, predictor: Predictor, with_mask: bool) -> dict[str, bytes]:
    """Segment an image (H, W, 3) and return PNG files by file name suffix, "" or "_mask"."""
    labels = predictor(image).labels
    try:
        overlay = draw_overlay(image, labels, predictor.vocabulary)
        pictures = {"": _png(Image.fromarray(overlay))}
        if with_mask:
            pictures["_mask"] = _png(mask_image(labels, len(predictor.vocabulary)))
    except MemoryError as error:
        raise UserError("not enough memory to draw it; resize the image") from error
    return pictures


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=COMPRESSION)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with _naming(path), atomic_write(path) as file:
        file.write(content)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; see --output") from error


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = parse_args(argv)
    setup_logger(name="cat_seg")
    try:
        skipped = run(args)
    except KeyboardInterrupt as interrupt:
        print("interrupted; images written so far are complete", file=sys.stderr)
        return status_of(interrupt)
    if skipped:
        print(
            f"skipped {skipped} image{'s' * (skipped > 1)}; the reasons are listed above",
            file=sys.stderr,
        )
        return SOME_SKIPPED
    return 0
