"""Segment images into the classes you name, and draw the result."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

from cat_seg.cli.segmenting.inputs import find_images, picture_names
from cat_seg.cli.segmenting.pictures import Drawing, Job, json_bytes, naming, write
from cat_seg.cli.segmenting.workers import draw_in_processes
from cat_seg.data import load_vocabulary, parse_vocabulary
from cat_seg.engine import load_config
from cat_seg.engine.setup import check_device
from cat_seg.errors import UserError, one_line_errors, printable
from cat_seg.inference import Segmenter
from cat_seg.inference.loading import config_of
from cat_seg.inference.result import check_threshold
from cat_seg.predictor import KINDS
from cat_seg.utils.processes import status_of
from cat_seg.utils.progress import bar

SOME_SKIPPED = 1  # exit status
# As in the published evaluation.
SLIDING_WINDOW = ("TEST.SLIDING_WINDOW", "True", "MODEL.SEM_SEG_HEAD.POOLING_SIZES", "[1, 1]")
EXAMPLE = """\
examples:
  %(prog)s photos/ --model cat-seg-base -v "cat, grass, sky" -o pictures
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
    parser.add_argument(
        "--model",
        help="the model: a name that `hps-seg models` lists, a Hugging Face repository, the folder "
        "of a training, or a checkpoint file",
    )
    parser.add_argument(
        "--config-file",
        help="model config, see configs/; without --model, --opts names MODEL.WEIGHTS",
    )
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
        "--confidence",
        type=float,
        metavar="P",
        help="leave pixels unknown whose class is less probable than this (0 to 1)",
    )
    parser.add_argument(
        "--save-masks",
        action="store_true",
        help="also write the labels as PNG (pixel value = index in classes.json)",
    )
    parser.add_argument(
        "--save-json",
        action="store_true",
        help="also write the areas and the confidence of the classes, one file for each image",
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="images at once (default: 1)"
    )
    parser.add_argument(
        "--devices",
        nargs="+",
        metavar="DEVICE",
        help="share the images among these devices (cuda:0 cuda:1), one process for each",
    )
    parser.add_argument(
        "--sliding-window",
        action="store_true",
        help="segment as the benchmarks do: at a higher resolution, several times slower",
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
    if args.model is None and args.config_file is None:
        parser.error("name the model with --model, or its config with --config-file")
    return args


def run(args: argparse.Namespace) -> int:
    """Segment all images and return the number skipped; the reasons are printed on stderr.

    Raises:
        UserError: the arguments, the model or the output folder are invalid.
    """
    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: give 1 or more")
    try:
        confidence = check_threshold(args.confidence)
    except UserError as error:
        raise UserError(f"--confidence: {error}") from error
    images = find_images(args.input, args.output)
    vocabulary = None if args.vocabulary is None else parse_vocabulary(args.vocabulary)
    cfg = _config(args)
    with naming(args.output):
        args.output.mkdir(parents=True, exist_ok=True)

    jobs = [Job(*each) for each in zip(images, picture_names(images), strict=True)]
    size = args.batch_size
    batches = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    drawing = Drawing(args.output, confidence, args.save_masks, args.save_json)
    skipped, began = 0, 0.0
    if len(args.devices or ()) > 1:
        names = vocabulary or _own_classes(cfg)
        drawn = draw_in_processes(cfg, vocabulary, args.devices, drawing, batches)
    else:
        segmenter = Segmenter(cfg, vocabulary)
        names = segmenter.vocabulary
        drawn = ((batch, drawing.draw(segmenter, batch)) for batch in batches)
    if args.save_masks:
        write(args.output / "classes.json", json_bytes(names))
    with closing(drawn), bar(total=len(images), unit="image") as progress:
        began = time.monotonic()
        for batch, errors in drawn:
            for reason in errors:
                progress.write(f"skipped: {reason}", file=sys.stderr)
            skipped += len(errors)
            progress.update(len(batch))
    seconds = time.monotonic() - began
    print(
        printable(
            f"wrote {len(images) - skipped} of {len(images)} images to {args.output} "
            f"({len(images) / seconds:.2g} images a second)"
        )
    )
    return skipped


def _config(args: argparse.Namespace) -> CfgNode:
    """Return the config of the model, on the first of the devices."""
    opts = [*(SLIDING_WINDOW if args.sliding_window else ()), *args.opts]
    if args.model is None:
        cfg = load_config(args.config_file, opts)
    else:
        cfg = config_of(args.model, config_file=args.config_file, opts=opts).cfg
    for device in reversed(args.devices or ()):
        cfg.MODEL.DEVICE = device
        try:
            check_device(cfg, kinds=KINDS)
        except UserError as error:
            raise UserError(f"--devices {device}: {error}") from error
    return cfg


def _own_classes(cfg: CfgNode) -> Sequence[str]:
    """Return the classes that the model of a config predicts."""
    head = cfg.MODEL.SEM_SEG_HEAD
    return load_vocabulary(head.TEST_CLASS_JSON or head.TRAIN_CLASS_JSON)


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
