"""The command, on a document and commands of our own."""

from __future__ import annotations

import re

import pytest
import yaml

from tools.figures.__main__ import main

DOCUMENT = """\
# Figures

There are 1,024 of them, which take 12.5 s.

| | size |
|---|--:|
| one | 1.0e-06 |
| two | |
"""
PRINT = """\
import pathlib
with open({runs!r}, "a") as file:
    file.write("x")
print("| name | small | large |")
print("|---|---|---|")
print("| first | 1e-7 | {size} |")
print("count: {count}")
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a document, a command that prints its figures, and the list of them."""
    (tmp_path / "page.md").write_text(DOCUMENT)
    table = {"table": "# Figures", "source": "small", "rows": {"one": "first"}}
    checks = [
        {"pattern": "There are ([\\d,]+)", "output": "count: (\\d+)"},
        {**table, "columns": {"size": ["small", "large"]}, "tolerance": {"factor": 2}},
    ]
    slow = {"pattern": "take ([\\d.]+) s", "output": "(\\d+)"}
    entries = [
        entry(tmp_path, "quick", checks),
        entry(tmp_path, "slow", [slow], slow=True),
    ]
    (tmp_path / "figures.yaml").write_text(yaml.safe_dump(entries))
    return write(tmp_path)


def entry(place, name, checks, **more):
    command = f"python {place / 'print.py'}"
    checks = [{"file": "page.md", **check} for check in checks]
    return {"name": name, "command": command, "minutes": 0.01, "checks": checks, **more}


def write(place, count=1024, size="1.5e-06", text=PRINT):
    file = place / "print.py"
    file.write_text(text.format(count=count, size=size, runs=str(place / "runs")))
    return place


def run(place, capsys, *arguments):
    given = ("--figures", place / "figures.yaml", "--root", place, "--output", place / "out")
    status = main([str(argument) for argument in (*arguments, *given)])
    return status, capsys.readouterr().out


def states(text):
    """The state of each figure, by document and name."""
    rows = [re.split(r"\s*\|\s*", line.strip()) for line in text.splitlines()]
    return {row[3]: row[5] for row in rows if len(row) == 7 and row[2] == "page.md"}


def test_figures_that_agree(place, capsys):
    status, text = run(place, capsys)
    assert status == 0
    found = states(text)
    assert found == {
        "There are ([\\d,]+)": "agrees",
        "one, size": "agrees",
        "take ([\\d.]+) s": "not run",
    }
    assert text.rstrip().endswith("2 agrees, 1 not run")
    assert "1024, now 1024" in text
    assert "1e-06, now 1.5e-06" in text


@pytest.mark.parametrize(
    ("printed", "wrong"),
    [({"count": 1025}, "There are ([\\d,]+)"), ({"size": "2.1e-06"}, "one, size")],
)
def test_a_wrong_figure_is_found(place, capsys, printed, wrong):
    write(place, **printed)
    status, text = run(place, capsys)
    assert status == 1
    assert [name for name, state in states(text).items() if state == "DIFFERS"] == [wrong]
    assert "1 differs" in text


def test_a_changed_document_is_found(place, capsys):
    (place / "page.md").write_text(DOCUMENT.replace("There are", "I see"))
    status, text = run(place, capsys)
    assert status == 1
    assert "page.md: nothing matches" in text
    assert states(text)["There are ([\\d,]+)"] == "FAILED"


def test_a_command_that_fails_does_not_stop_the_others(place, capsys):
    write(place, text="raise SystemExit('no such thing')")
    status, text = run(place, capsys, "--all")
    assert status == 1
    assert text.count("failed with exit status 1: no such thing") == 2
    assert {*states(text).values()} == {"FAILED"}


def test_finished_commands_are_kept_and_failed_ones_run_again(place, capsys):
    write(place, text="raise SystemExit(3)")
    run(place, capsys)
    write(place)
    for _ in range(2):
        assert run(place, capsys)[0] == 0
    assert (place / "runs").read_text() == "x"


def test_commands_are_chosen_by_name(place, capsys):
    status, text = run(place, capsys, "slow")
    assert status == 1  # the first number that is printed is 1
    assert states(text)["There are ([\\d,]+)"] == "not run"
    status, text = run(place, capsys, "--list")
    assert status == 0
    assert text.splitlines()[1].endswith("(about 0.01 min, with --all alone)")
    with pytest.raises(SystemExit) as ended:
        run(place, capsys, "other")
    assert ended.value.code == 2
    assert "other: no such name; choose from quick, slow" in capsys.readouterr().err
