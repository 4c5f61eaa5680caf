"""The entry point of `hps-seg COMMAND ...`, which runs the subcommand."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from cat_seg.utils.compatibility import require_detectron2


class Command(NamedTuple):
    """A subcommand: the module whose `main(argv)` runs it, and one line of help."""

    module: str
    summary: str


# Modules are imported lazily, so that `hps-seg --help` need not wait for PyTorch.
COMMANDS = {
    "segment": Command("cat_seg.cli.segment", "segment images into the classes you name"),
    "demo": Command("cat_seg.cli.demo", "open a page in the browser that segments your pictures"),
    "train": Command("cat_seg.cli.train", "train a model, or evaluate one with --eval-only"),
    "evaluate": Command("cat_seg.cli.evaluate", "evaluate weights on the benchmarks on disk"),
    "ablate": Command("cat_seg.cli.ablate", "train and evaluate H-CLIP, +HPA, +AFR and HPS-Seg"),
    "prepare": Command("cat_seg.cli.prepare", "convert a downloaded dataset"),
    "check-data": Command("cat_seg.data.check", "check prepared datasets and draw samples"),
    "results": Command("cat_seg.cli.results", "print the results table of runs"),
    "compare": Command(
        "cat_seg.cli.compare", "say how two results differ, and whether by more than chance"
    ),
    "analyse": Command("cat_seg.cli.analyse", "draw what a finished training has learned, and how"),
    "radius": Command("cat_seg.cli.radius", "draw the hyperbolic radius of CLIP's embeddings"),
    "models": Command("cat_seg.cli.models", "list the models that can be given by name"),
    "export-hub": Command("cat_seg.cli.export_hub", "make a folder to share of a training"),
    "configs": Command("cat_seg.cli.configs", "list the shipped configs, or copy one to edit"),
}
ALIASES = {"analyze": "analyse"}
EXAMPLE = """\
examples:
  hps-seg configs
  hps-seg segment photos/ -v "cat, grass, sky" -o pictures \\
      --config-file configs/vitb_384.yaml --opts MODEL.WEIGHTS model_base.pth

`hps-seg COMMAND --help` shows the options of a command.
"""


def usage() -> str:
    """Return the text of `hps-seg --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: hps-seg COMMAND ...", "", "commands:", *lines, "", EXAMPLE])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status; 2 for an unknown one."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if name in ("-h", "--help"):
        print(usage(), end="")
        return 0
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        problem = f"unknown command {name!r}" if name else "no command given"
        print(f"error: {problem}; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    # The program name in argparse and error messages.
    sys.argv = [f"hps-seg {name}", *rest]
    return run_command(name)


def run_command(name: str) -> int:
    """Run a subcommand with the arguments in sys.argv and return its exit status."""
    if name != "configs":
        try:
            require_detectron2()
        except ImportError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return importlib.import_module(COMMANDS[name].module).main() or 0


if __name__ == "__main__":
    sys.exit(main())
