"""The table of docs/adapters.md against what its command prints."""

from __future__ import annotations

import re

import pytest

from cat_seg.modeling.clip.adapters import FINE_TUNINGS
from cat_seg.utils.paths import REPO_ROOT

PAGE = (REPO_ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture) -> None:
    table = re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\| ([\d,]+) \|", PAGE, re.MULTILINE)
    (command,) = re.findall(r"python - <<'END'\n(.*?)END\n", PAGE, re.DOTALL)
    exec(compile(command, "docs/adapters.md", "exec", dont_inherit=True), {})
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert dict(table) == printed
    assert set(printed) == set(FINE_TUNINGS)
