"""Draw the hyperbolic radius of CLIP's embeddings before, during and after fine-tuning.

Works with every CLIP_FINETUNE; see docs/hyperclip.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from detectron2.utils.logger import setup_logger
from torch import Tensor

from cat_seg.analysis.radius import (
    IMAGE,
    TEXT,
    Trajectory,
    mean_and_spread,
    measure,
    read_trajectories,
)
from cat_seg.analysis.radius_figure import draw_radii
from cat_seg.cat_seg_model import CATSeg
from cat_seg.checkpoint import Checkpointer
from cat_seg.data import parse_vocabulary, read_image
from cat_seg.engine import Trainer, load_config
from cat_seg.engine.setup import check_device
from cat_seg.errors import UserError, one_line_errors
from cat_seg.utils.files import atomic_write
from cat_seg.utils.paths import resolve

START = "start"
EXAMPLE = """\
example:
  %(prog)s --output radius.png --vocabulary ade150 \\
      --checkpoint CLIP configs/vitb_384.yaml start \\
      --checkpoint H-CLIP configs/vitb_384_oft.yaml output/oft/model_final.pth
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, type=Path, help="PNG file to write")
    parser.add_argument(
        "--checkpoint",
        nargs=3,
        action="append",
        default=[],
        metavar=("TITLE", "CONFIG", "WEIGHTS"),
        help=f"a model to plot; WEIGHTS '{START}' uses CLIP_WEIGHTS, the weights before "
        "fine-tuning; repeatable",
    )
    parser.add_argument(
        "--run",
        nargs=2,
        action="append",
        default=[],
        metavar=("TITLE", "METRICS"),
        help="metrics.json of a training run with MODEL.HYPERBOLIC.RADIUS_PERIOD; repeatable",
    )
    parser.add_argument(
        "--vocabulary",
        action="append",
        default=[],
        help='class names: "cat, dog", a .json or .txt file, or the name of a shipped list '
        '(ade150); a class that looks like a file or a list needs a comma ("ade151,"); repeatable '
        "(default: all vocabularies of the runs)",
    )
    parser.add_argument(
        "--images", nargs="+", default=[], help="images whose patch embeddings are measured"
    )
    parser.add_argument("--title", default="", help="title of the figure")
    parser.add_argument(
        "--opts",
        nargs="*",
        default=[],
        metavar="KEY VALUE",
        help="overrides for every config, such as MODEL.DEVICE cpu",
    )
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Refuse invalid combinations of arguments before any model is built."""
    if args.output.suffix.lower() != ".png":
        raise UserError(f"--output {args.output}: give a file name ending in .png")
    if not args.checkpoint and not args.run:
        raise UserError("nothing to plot; give --checkpoint TITLE CONFIG WEIGHTS or --run")
    if args.checkpoint and not args.vocabulary:
        raise UserError("--checkpoint needs class names to measure; give --vocabulary")
    if args.images and not args.checkpoint:
        raise UserError("--images needs a model to measure them with; add --checkpoint")
    for option, titles in (
        ("--checkpoint", [given[0] for given in args.checkpoint]),
        ("--run", [given[0] for given in args.run]),
        ("--vocabulary", [vocabulary_name(text) for text in args.vocabulary]),
    ):
        twice = {title for title in titles if titles.count(title) > 1}
        if twice:
            raise UserError(f"{option}: '{twice.pop()}' is given twice; use distinct names")


def vocabulary_name(text: str) -> str:
    """Return a vocabulary's name in the picture and the metrics: a file's stem, or the text."""
    path = Path(text.strip())
    return path.stem if path.suffix.lower() in (".json", ".txt") else text.strip().rstrip(", ")


def load_model(config: str, weights: str, overrides: Sequence[str]) -> CATSeg:
    """Build the model of a config and load a checkpoint, unless `weights` is START."""
    chosen = "" if weights == START else weights
    cfg = load_config(config, [*overrides, "MODEL.WEIGHTS", chosen])
    check_device(cfg)
    model = cast(CATSeg, Trainer.build_model(cfg).eval())
    Checkpointer(model, averaged=cfg.MODEL.WEIGHTS_EMA).load(cfg.MODEL.WEIGHTS)
    return model


def read_runs(args: argparse.Namespace) -> dict[str, dict[str, Trajectory]]:
    """Read the trajectories of every run for the requested vocabularies."""
    wanted = {f"{TEXT}{vocabulary_name(text)}" for text in args.vocabulary} | {IMAGE}
    runs = {}
    for title, metrics in args.run:
        found = read_trajectories(resolve(metrics))
        chosen = {key: run for key, run in found.items() if not args.vocabulary or key in wanted}
        if not chosen:
            raise UserError(
                f"{metrics} has none of the requested vocabularies; choose from {', '.join(found)}"
            )
        runs[title] = chosen
    return runs


def numbers(radii: Tensor, names: Iterable[str] | None) -> dict[str, Any]:
    """Return mean and standard deviation, and the radius of each class if names are given."""
    mean, std = mean_and_spread(radii)
    found: dict[str, Any] = {"mean": mean, "std": std}
    if names is not None:
        found["radius"] = dict(zip(names, radii.tolist(), strict=True))
    return found


def content(
    radii: Mapping[str, Mapping[str, Tensor]],
    runs: Mapping[str, Mapping[str, Trajectory]],
    vocabularies: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return the numbers behind the picture, as JSON values.

    Args:
        radii: from `measure`, by title of the model.
        runs: trajectories, by title of the run.
        vocabularies: class names by vocabulary name.
    """
    listed = {f"{TEXT}{name}": names for name, names in vocabularies.items()}
    return {
        "checkpoints": {
            title: {key: numbers(values, listed.get(key)) for key, values in measured.items()}
            for title, measured in radii.items()
        },
        "runs": {
            title: {key: asdict(trajectory) for key, trajectory in run.items()}
            for title, run in runs.items()
        },
    }


def run(args: argparse.Namespace) -> None:
    """Measure the radii, draw them, and write the picture and its numbers."""
    check(args)
    vocabularies = {vocabulary_name(text): parse_vocabulary(text) for text in args.vocabulary}
    images = [
        torch.tensor(read_image(str(resolve(path)), "RGB")).permute(2, 0, 1) for path in args.images
    ]
    runs = read_runs(args)
    radii = {
        title: measure(load_model(config, weights, args.opts), vocabularies, images)
        for title, config, weights in args.checkpoint
    }
    figure = draw_radii(radii, runs, args.title)
    table = args.output.with_suffix(".json")
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(table, "w") as file:
            json.dump(content(radii, runs, vocabularies), file, indent=1, ensure_ascii=False)
        with atomic_write(args.output) as file:
            figure.savefig(file, format="png")
    except OSError as error:
        raise UserError(f"cannot write {args.output}: {error.strerror}; see --output") from error
    print(f"wrote the figure to {args.output} and the numbers to {table}")


@one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    setup_logger(name="cat_seg")
    run(args)
