"""Train, evaluate and visualize a small HPS-Seg on synthetic data: python -m tools.quickstart."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cat_seg.errors import UserError, one_line_errors
from cat_seg.utils.files import exclusive_lock
from tools.quickstart.pipeline import Settings, run_quickstart
from tools.quickstart.training import FULL

INTERRUPTED = 130
# The options that select the small model which is pre-trained; configs/quickstart.yaml has CLIP's.
ENCODERS: dict[str, tuple[str, ...]] = {
    "clip": (),
    "eva02": ("MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED", "configs/quickstart_eva02.json"),
    "siglip": ("MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED", "configs/quickstart_siglip.json"),
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.quickstart", description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/quickstart"),
        help="output folder; a second run resumes there (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="0 or more (default: %(default)s)")
    parser.add_argument(
        "--adapter",
        choices=FULL,
        default="oft",
        help="how the full model fine-tunes CLIP (default: %(default)s)",
    )
    parser.add_argument(
        "--encoder",
        choices=ENCODERS,
        default="clip",
        help="what kind of CLIP is pre-trained (default: %(default)s)",
    )
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None, settings: Settings | None = None) -> None:
    """Run the quickstart, and print the results and the files written."""
    args = parse_args(argv)
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: give 0 or more")
    settings = settings or Settings()
    settings = replace(settings, options=(*ENCODERS[args.encoder], *settings.options))
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(args.output):
            text = run_quickstart(args.output, args.seed, settings, args.adapter)
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to resume", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        raise UserError(f"--output {args.output}: {error}") from error
    weights = f"{FULL[args.adapter].name}/model_final.pth"
    print(f"\n{text}")
    for name, what in (
        ("samples.png", "images, ground truth and predictions"),
        ("curves.png", "training losses"),
        ("calibration.png", "how far to trust the confidence, with calibration.json"),
        ("overlays", "output of demo/demo.py"),
        ("table.md", "the table above, with table.json"),
        (weights, "the trained model, for demo/demo.py and train_net.py"),
    ):
        print(f"{args.output / name}: {what}")


if __name__ == "__main__":
    main()
