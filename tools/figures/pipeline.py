"""Run the commands that print figures, keeping the outputs of earlier runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT
from cat_seg.utils.progress import bar, move
from tools.figures.catalog import Command
from tools.quickstart.scripts import Scripts
from tools.quickstart.stages import Stage, StageRunner

# What the outputs depend on, apart from the installed libraries.
SOURCES = (
    *(REPO_ROOT / name for name in ("cat_seg", "tools", "tests/parity", "tests/golden")),
    *sorted((REPO_ROOT / "configs").glob("*.yaml")),
    *sorted((REPO_ROOT / "datasets").glob("*.json")),
)
MINUTE = 60


def print_again(commands: Sequence[Command], folder: Path) -> dict[str, str | UserError]:
    """Run what is not finished in `folder`; a command that fails does not stop the others.

    Args:
        commands: in order.
        folder: where the outputs are kept, as NAME.txt.

    Returns:
        By name of the command, its output or why it failed.
    """
    runner, scripts = StageRunner(folder / "stages"), Scripts()
    found: dict[str, str | UserError] = {}
    done = 0.0
    with bar(total=round(sum(each.minutes for each in commands) * MINUTE), unit="s") as progress:
        for command in commands:
            look = partial(_look, progress, done, command, time.monotonic())
            log = folder / f"{command.name}.txt"
            stage = Stage(
                command.name,
                partial(scripts.run, command.arguments, log, look),
                outputs=(log,),
                settings={"arguments": [*command.arguments]},
                sources=SOURCES,
            )
            try:
                runner.run(stage)
                found[command.name] = log.read_text(encoding="utf-8")
            except UserError as error:
                found[command.name] = error
            done += command.minutes * MINUTE
            move(progress, round(done), command.name)
    return found


def _look(progress: bar, done: float, command: Command, start: float) -> None:
    """Move the bar by the time that a command has taken, up to the time that it should take."""
    spent = min(time.monotonic() - start, command.minutes * MINUTE)
    move(progress, round(done + spent), command.name)
