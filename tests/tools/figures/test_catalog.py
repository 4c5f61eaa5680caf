"""The list of figures and the documents hold each other."""

from __future__ import annotations

import pytest
import yaml

from cat_seg.utils.paths import REPO_ROOT
from tools.figures.catalog import FIGURES, Tolerance, read_catalog

COMMANDS = read_catalog(FIGURES, REPO_ROOT)
ENTRY = {
    "name": "one",
    "command": "python -m one",
    "minutes": 1,
    "checks": [{"file": "README.md", "pattern": "a", "output": "b"}],
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_figure_is_found_in_its_document_beside_its_command(command):
    """A document that changes without the list fails here."""
    for check in command.checks:
        documented = check.documented()
        assert documented
        text = " ".join(check.file.read_text(encoding="utf-8").split())
        assert f"`{command.shown}`" in text or f"{command.shown} " in text, check.file


def test_names_are_unique_and_the_quick_ones_are_quick():
    names = [command.name for command in COMMANDS]
    assert len(names) == len({*names})
    assert sum(command.minutes for command in COMMANDS if not command.slow) <= 15


def test_tolerances():
    assert Tolerance().accepts(5898240, 5898240)
    assert not Tolerance().accepts(5898240, 5898241)
    assert Tolerance(absolute=0.04).accepts(0.82, 0.78)
    assert not Tolerance(absolute=0.04).accepts(0.82, 0.77)
    assert Tolerance(factor=4).accepts(1e-6, 3.9e-6)
    assert Tolerance(factor=4).accepts(3.9e-6, 1e-6)
    assert not Tolerance(factor=4).accepts(1e-6, 4.1e-6)
    assert not Tolerance(factor=4).accepts(1, -1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"minute": 3}, "one: unknown minute"),
        ({"command": "make one"}, "one: its command, or `run`, must start with python"),
        ({"checks": [{"file": "README.md", "pattern": "a"}]}, "one: give table, source"),
        ({"checks": [{"file": "README.md", "table": "# A"}]}, "one: give table, source"),
    ],
)
def test_an_entry_that_is_not_as_described_is_refused(tmp_path, change, problem):
    file = tmp_path / "figures.yaml"
    file.write_text(yaml.safe_dump([ENTRY | change]))
    with pytest.raises(ValueError, match=problem):
        read_catalog(file, tmp_path)
