"""Convert a downloaded dataset into label maps; datasets/README.md says what to download."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cat_seg.data.preparation import Conversion, ade20k, coco_stuff, pascal_context, prepare, voc

NAMES: dict[str, tuple[Callable[[Path], list[Conversion]], str]] = {
    "coco-stuff": (coco_stuff.find_conversions, "COCO-Stuff 164k, the training set"),
    "ade20k-full": (ade20k.find_full, "A-847"),
    "ade20k-150": (ade20k.find_challenge, "A-150 and ADE20K's training images"),
    "pascal-context-459": (pascal_context.find_459, "PC-459"),
    "pascal-context-59": (pascal_context.find_59, "PC-59"),
    "voc": (voc.find_conversions, "PAS-20 and PAS-20b"),
}
EXAMPLE = """\
example:
  hps-seg prepare voc --root /data/segmentation --jobs 8
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Convert the dataset named by the first argument."""
    listing = "\n".join(f"  {name:20}{text}" for name, (_, text) in NAMES.items())
    parser = argparse.ArgumentParser(
        usage="hps-seg prepare NAME [--root FOLDER] [--jobs N]",
        description=f"{__doc__}\n\nnames:\n{listing}",
        epilog=f"`hps-seg prepare NAME --help` shows the options.\n\n{EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("name", nargs="?", choices=NAMES, metavar="NAME", help="see above")
    given = [*(sys.argv[1:] if argv is None else argv)]
    if not given or given[0] in ("-h", "--help"):
        parser.print_help()
        raise SystemExit(0 if given else 2)
    name = parser.parse_args(given[:1]).name
    find, description = NAMES[name]
    prepare(find, description, given[1:])
