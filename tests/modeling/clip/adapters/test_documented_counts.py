"""The table of docs/adapters.md against what its command prints."""

from __future__ import annotations

import re

from cat_seg.modeling.clip.adapters import FINE_TUNINGS
from cat_seg.utils.paths import REPO_ROOT
from tools.figures.count import parameters

PAGE = (REPO_ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")


def test_the_command_prints_the_table() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\| ([\d,]+) \|", PAGE, re.MULTILINE))
    printed = {name: trained for name, trained, *_ in parameters()[1:]}
    assert table == printed
    assert set(printed) == set(FINE_TUNINGS)
