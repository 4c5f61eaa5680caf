from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cat_seg.cli import main as cli
from cat_seg.errors import BROKEN_PIPE


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name}" in text
        assert command.summary in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(capsys, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["hps-seg"])
    try:
        status = cli.main([name, "--help"])
    except SystemExit as ended:  # argparse's way
        status = ended.code
    assert not status
    text = capsys.readouterr().out
    assert text.startswith(f"usage: hps-seg {name}")
    assert "example" in text.lower()
    assert text.count(f"hps-seg {name}") >= 2


@pytest.mark.parametrize(
    ("arguments", "problem"), [([], "no command given"), (["x"], "unknown command 'x'")]
)
def test_an_unknown_command_is_one_line(capsys, arguments, problem):
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert problem in line
    assert "segment" in line


def test_the_american_spelling_is_an_alias(monkeypatch):
    run = []
    monkeypatch.setattr(cli, "run_command", lambda name: run.append(name) or 0)
    monkeypatch.setattr(sys, "argv", ["hps-seg"])
    assert cli.main(["analyze", "folder"]) == 0
    assert run == ["analyse"]


def test_help_does_not_wait_for_pytorch():
    code = (
        "import sys; from cat_seg.cli import main; main.main(['-h']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("False\n"), done.stderr


@pytest.mark.parametrize("command", [["configs"], ["models", "--json"]])
def test_a_reader_that_stops_early_is_no_error(command):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "cat_seg.cli.main", *command],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    finally:
        os.close(writing)
    assert ended.returncode == BROKEN_PIPE
    assert ended.stderr == ""
