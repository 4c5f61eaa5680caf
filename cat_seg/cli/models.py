"""List the models that can be given by name, to --model and MODEL.WEIGHTS."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from tabulate import tabulate

from cat_seg.errors import UserError, one_line_errors
from cat_seg.hub.registry import MODELS, ModelEntry, list_models

EXAMPLE = """\
examples:
  hps-seg models
  hps-seg models "cat-seg-*" --json

A folder of save_pretrained, a training's OUTPUT_DIR and a repository on the Hugging Face Hub
("owner/name") can be given in place of a name; see docs/models.md.
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help='only these names, such as "cat-seg-*"'
    )
    parser.add_argument("--json", action="store_true", help="print all that is recorded, as JSON")
    return parser.parse_args(argv)


def table(entries: Sequence[ModelEntry]) -> str:
    """Format models as a table, with the published mIoU in percent."""
    benchmarks = list(dict.fromkeys(b for entry in entries for b in entry.miou))
    rows = [
        [
            entry.name,
            entry.config or "config.yaml",
            *(f"{entry.miou[b]:.1f}" if b in entry.miou else "-" for b in benchmarks),
            "-" if entry.size is None else f"{entry.size / 1e6:.0f}",
            entry.license or "-",
            entry.location,
        ]
        for entry in entries
    ]
    headers = ["name", "config", *benchmarks, "MB", "license", "weights"]
    align = ("left", "left", *["right"] * (len(benchmarks) + 1), "left", "left")
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=align)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print the models."""
    args = parse_args(argv)
    entries = [MODELS[name] for name in list_models(args.pattern)]
    if not entries:
        raise UserError(f"no model matches {args.pattern!r}; there are {', '.join(list_models())}")
    if args.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=1, ensure_ascii=False))
        return 0
    print(table(entries))
    if sources := dict.fromkeys(entry.miou_source for entry in entries if entry.miou_source):
        print(f"\nmIoU in percent as published: {'; '.join(sources)}")
    return 0
