"""Make a folder to share from a finished training: weights, config, class list and model card."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cat_seg.errors import one_line_errors
from cat_seg.hub.export import export_run

EXAMPLE = """\
example:
  %(prog)s output/enhanced shared/my-hps-seg --no-clip --license mit
  hf upload OWNER/my-hps-seg shared/my-hps-seg
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="OUTPUT_DIR of the training")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write")
    parser.add_argument(
        "--no-clip",
        action="store_true",
        help="leave out CLIP's own weights, where they were frozen; loading the model then "
        "downloads them",
    )
    parser.add_argument("--name", help="the model's name in its card (default: FOLDER's)")
    parser.add_argument("--license", help="license of the weights, such as mit")
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder."""
    args = parse_args(argv)
    folder = export_run(
        args.run, args.folder, clip=not args.no_clip, name=args.name, license=args.license
    )
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    print(f"wrote {folder} ({size / 1e6:.1f} MB)")
    return 0
