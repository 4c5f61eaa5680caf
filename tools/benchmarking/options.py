"""The benchmark's command line, and the config built from it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import takewhile
from pathlib import Path

import torch
from detectron2.config import CfgNode

from cat_seg.configuration.loading import load_config
from cat_seg.data.vocabularies import load_vocabulary, shipped_path
from cat_seg.engine.setup import check_device
from cat_seg.errors import UserError

MODES = {
    "train": "forward and backward of a training step (the optimizer step is timed separately)",
    "eval": "whole-image inference with cached text features",
    "slide": "sliding-window inference with cached text features",
    "text": "text tower and adapters only: forward, and backward if they are trained",
    "dataload": "batches of the training loader, from generated 480x640 images",
    "ddp": "training steps in --processes processes, compared with one process",
    "count": "operations and memory of a training step on a GPU, counted without one",
    "start": "first result of a fresh process: import, build, load, encode classes, one image",
}
SWEEPS = {
    "classes": (20, 50, 100, 171, 256, 400, 600, 847),
    "batch": (1, 2, 4, 8),
    "size": (384, 512, 640, 768, 896, 1024),
}
AMP = {"off": None, "bf16": "bfloat16", "fp16": "float16"}  # TEST.AMP.DTYPE or SOLVER.AMP.DTYPE
IMAGE_SIZES = {"slide": (480, 640)}  # modes whose default image size is not CLIP's input size
INFERENCE = ("eval", "slide", "start")
_NOT_SHARED = {"stages", "output", "sweep", "points", "compare", "opts"}
_SWITCHES = {"tf32"}  # on/off options whose default comes from the config
_MOST_SHIPPED = "ade847"

EPILOG = """\
Times are given in seconds and in units. One unit is the time of one product of two square matrices
(side 2048 on a CPU, 8192 on CUDA, in the precision in use). It is measured between the runs, so a
busy or slow machine affects both. Weights are random unless MODEL.WEIGHTS is given. The model
resizes every image to CLIP's input size, so --sweep size changes only what comes before and after
(train: the size of the labels in the loss; eval, slide: the size of the output)."""


@dataclass(frozen=True)
class Options:
    """Parsed command line; see `parse`."""

    config_file: str
    mode: str
    classes: int | None
    batch: int
    image_size: tuple[int, int] | None
    device: str
    amp: str
    tf32: bool | None
    compile: bool
    step: float
    processes: int
    runs: int
    warmup: int
    threads: int | None
    stages: bool
    output: Path | None
    sweep: str | None
    points: tuple[int, ...] | None
    compare: tuple[str, str] | None
    opts: tuple[str, ...]


def parse(argv: Sequence[str] | None = None) -> Options:
    """Parse and check the command line.

    Raises:
        UserError: an argument is invalid, alone or in combination with another.
    """
    given = vars(_parser().parse_args(argv))
    given["stages"] = not given.pop("no_stages")
    given["opts"] = tuple(given["opts"])
    given["compare"] = tuple(given["compare"]) if given["compare"] else None
    for key in ("image_size", "points"):
        if given[key] is not None:
            given[key], changes = _numbers(key, given[key])
            given["opts"] = (*changes, *given["opts"])
    if given["image_size"] is not None:
        given["image_size"] = _image_size(given["image_size"])
    options = Options(**given)
    _check(options)
    return options


def arguments(options: Options) -> list[str]:
    """Return the command-line arguments that all points of a sweep share."""
    given: list[str] = []
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in _NOT_SHARED or value is None:
            continue
        name = field.name.replace("_", "-")
        if value is False:
            if field.name in _SWITCHES:
                given.append(f"--no-{name}")
            continue
        given.append(f"--{name}")
        if value is not True:
            given += [str(part) for part in (value if isinstance(value, tuple) else (value,))]
    return given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/benchmark.py",
        description="Measure time, arithmetic and memory of a model, by stage.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    modes = "; ".join(f"{name}: {what}" for name, what in MODES.items())
    cuda = "cuda" if torch.cuda.is_available() else "cpu"
    add = parser.add_argument
    add("--config-file", default="configs/vitb_384_oft.yaml", help="default: %(default)s")
    add("--mode", choices=MODES, default="train", help=f"{modes} (default: %(default)s)")
    add("--classes", type=int, metavar="N", help="default: the config's training classes")
    add("--batch", type=int, default=1, metavar="B", help="batch size (default: %(default)s)")
    add(
        "--image-size",
        nargs="+",
        metavar="PIXELS",
        help="height and width, or one number for both (default: 384; slide: 480 640)",
    )
    add("--device", default=cuda, help="cuda or cpu (default here: %(default)s)")
    add(
        "--amp",
        choices=AMP,
        nargs="?",
        const="bf16",
        default="off",
        help="mixed precision; bf16 if no value is given (default: %(default)s)",
    )
    add(
        "--tf32",
        action=argparse.BooleanOptionalAction,
        help="let CUDA compute float32 products in TF32 (default: MODEL.TF32)",
    )
    add("--compile", action="store_true", help="use torch.compile (without times by stage)")
    add("--runs", type=int, default=5, metavar="R", help="timed runs (default: %(default)s)")
    add("--warmup", type=int, default=1, metavar="W", help="warm-up runs (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's choice)")
    add(
        "--step",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="dataload: simulated duration of a training step (default: 0, the loader alone)",
    )
    add(
        "--processes",
        type=int,
        default=2,
        metavar="N",
        help="ddp: number of processes (default: %(default)s)",
    )
    add("--no-stages", action="store_true", help="do not measure by stage")
    add("--output", type=Path, metavar="FILE.json", help="also write all measurements")
    add(
        "--sweep",
        choices=SWEEPS,
        help="measure --mode at several values, each in its own process; writes --output and a "
        "plot beside it, and keeps points that --output already has",
    )
    add("--points", nargs="+", metavar="N", help="the values of --sweep")
    add(
        "--compare",
        nargs=2,
        metavar=("BEFORE.json", "AFTER.json"),
        help="only print two results side by side",
    )
    add(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config overrides, after all options",
    )
    return parser


def _numbers(key: str, given: Sequence[str]) -> tuple[tuple[int, ...], Sequence[str]]:
    """Split an option's values into leading numbers and the KEY VALUE pairs after them."""
    numbers = tuple(map(int, takewhile(str.isdecimal, given)))
    if not numbers:
        raise UserError(f"--{key.replace('_', '-')} {given[0]}: give integers")
    return numbers, given[len(numbers) :]


def _image_size(given: Sequence[int]) -> tuple[int, int]:
    if len(given) > 2:
        raise UserError("--image-size: give one number, or height and width")
    return given[0], given[-1]


def _check(options: Options) -> None:
    counts = {
        "--classes": options.classes,
        "--batch": options.batch,
        "--runs": options.runs,
        "--threads": options.threads,
        "--processes": options.processes,
        "--image-size": min(options.image_size) if options.image_size else None,
        "--points": min(options.points) if options.points else None,
    }
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{name} {value}: give 1 or more")
    for name, value in (("--warmup", options.warmup), ("--step", options.step)):
        if value < 0:
            raise UserError(f"{name} {value}: give 0 or more")
    if "MODEL.DEVICE" in options.opts[::2]:
        raise UserError("MODEL.DEVICE cannot be given here; use --device")
    if options.output is not None and options.output.suffix != ".json":
        raise UserError(f"--output {options.output}: give a file name ending in .json")
    if options.sweep and options.output is None:
        raise UserError("--sweep needs --output FILE.json to store its points")
    if options.points and not options.sweep:
        raise UserError("--points needs --sweep; add --sweep and the quantity to sweep")
    if options.sweep and options.mode in ("ddp", "dataload", "start", "count"):
        raise UserError(f"--sweep cannot be combined with --mode {options.mode}")
    if options.sweep and options.mode == "text" and options.sweep != "classes":
        raise UserError("--mode text depends only on the classes; use --sweep classes")


def build_config(options: Options, folder: Path) -> CfgNode:
    """Build the config to measure.

    Args:
        options: the command line.
        folder: folder for the class list of --classes; it must exist until the model is built.

    Raises:
        UserError: the config is invalid, or the device is not available.
    """
    changes = ["MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS", "random", "MODEL.DEVICE", options.device]
    if options.mode in INFERENCE:
        changes += ["MODEL.SEM_SEG_HEAD.POOLING_SIZES", "[1, 1]"]
        changes += ["TEST.SLIDING_WINDOW", str(options.mode == "slide")]
    cfg = load_config(options.config_file, [*changes, *options.opts])
    check_device(cfg)
    cfg.SOLVER.IMS_PER_BATCH = options.batch
    if options.amp != "off":
        section = cfg.TEST if options.mode in INFERENCE else cfg.SOLVER
        section.AMP.ENABLED, section.AMP.DTYPE = True, AMP[options.amp]
    if options.compile:
        cfg.MODEL.COMPILE = True
    if options.tf32 is not None:
        cfg.MODEL.TF32 = options.tf32
    head = cfg.MODEL.SEM_SEG_HEAD
    if options.classes is not None:
        listed = folder / "classes.json"
        listed.write_text(json.dumps(class_names(options.classes, head.TRAIN_CLASS_JSON)))
        head.TRAIN_CLASS_JSON = head.TEST_CLASS_JSON = str(listed)
    return cfg


def uses_tf32(options: Options) -> bool:
    """Return whether float32 products use TF32: only on CUDA, as set by --tf32 or the config."""
    if not options.device.startswith("cuda"):
        return False
    if options.tf32 is not None:
        return options.tf32
    return load_config(options.config_file, options.opts).MODEL.TF32


def class_names(number: int, path: str) -> list[str]:
    """Return `number` class names from `path`, the longest shipped vocabulary, or made up."""
    for source in (path, shipped_path(_MOST_SHIPPED)):
        names = load_vocabulary(source)
        if number <= len(names):
            return names[:number]
    return [f"class {index}" for index in range(number)]
