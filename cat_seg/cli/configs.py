"""List the shipped configs, print one, or copy one with its base for editing."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from cat_seg.errors import UserError, one_line_errors
from cat_seg.utils.paths import SHIPPED_ROOT

FOLDER = SHIPPED_ROOT / "configs"
EXAMPLE = """\
examples:
  hps-seg configs                               list them
  hps-seg configs vitb_384_enhanced             print one
  hps-seg configs vitb_384_enhanced my.yaml     copy it for editing
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="name of a config, such as vitb_384_enhanced")
    parser.add_argument(
        "target", nargs="?", type=Path, metavar="FILE.yaml", help="file to copy it to"
    )
    return parser.parse_args(argv)


def summaries() -> dict[str, str]:
    """Return the first comment line of each shipped config, by config name."""
    files = sorted(FOLDER.glob("*.yaml"))
    return {
        file.stem: file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        for file in files
    }


def find(name: str) -> Path:
    """Return the shipped config with this name, which may include "configs/" and ".yaml".

    Raises:
        UserError: there is no such config.
    """
    file = FOLDER / f"{Path(name).name.removesuffix('.yaml')}.yaml"
    if not file.is_file():
        raise UserError(f"unknown config {name!r}; choose from {', '.join(summaries())}")
    return file


def copy(source: Path, target: Path) -> list[Path]:
    """Copy a config and its base configs.

    The bases are copied beside `target` under their own names. Existing files are not overwritten.

    Returns:
        The files written.

    Raises:
        UserError: `target` exists or cannot be written.
    """
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"{target} is not a .yaml file name; use a name ending in .yaml")
    if target.exists():
        raise UserError(f"{target} already exists; choose another name or remove it first")
    written = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        written.append(target)
        while base := _base_of(source):
            source = source.with_name(base)
            beside = target.with_name(base)
            if not beside.exists():
                shutil.copyfile(source, beside)
                written.append(beside)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    return written


def _base_of(config: Path) -> str | None:
    """Return the _BASE_ of a shipped config: the name of a file in the same folder, or None."""
    for line in config.read_text(encoding="utf-8").splitlines():
        if line.startswith("_BASE_:"):
            return line.split(":", 1)[1].strip().strip("\"'")
    return None


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """List, print or copy configs."""
    args = parse_args(argv)
    if args.name is None:
        known = summaries()
        width = max(map(len, known))
        print("\n".join(f"{name:{width}}  {summary}" for name, summary in known.items()))
    elif args.target is None:
        print(find(args.name).read_text(encoding="utf-8"), end="")
    else:
        for file in copy(find(args.name), args.target):
            print(f"wrote {file}")
    return 0
