"""The shipped configs against every effective key of the published ones."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from cat_seg.configuration.loading import leaves
from cat_seg.configuration.published import is_published
from cat_seg.engine import load_config
from cat_seg.utils.paths import REPO_ROOT

PUBLISHED = json.loads(Path(__file__).with_name("published_configs.json").read_text())
ABSENT = "absent"


class Row(NamedTuple):
    """A row of the table in docs/differences.md; no values stand for any."""

    key: str
    published: list[Any]
    ours: list[Any]


def cell_values(cell: str) -> list[Any]:
    if cell == "-":
        return [ABSENT]
    return [yaml.safe_load(value) for value in re.findall(r"`([^`]+)`", cell)]


def table() -> list[Row]:
    text = (REPO_ROOT / "docs/differences.md").read_text()
    lines = text.split("## The recipe, key by key")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    assert rows[0] == ["Key", "Published", "Here", "Why"]
    assert all(len(row) == 4 and row[3] for row in rows)
    return [
        Row(key.strip("`"), cell_values(published.split(" (")[0]), cell_values(ours))
        for key, published, ours, _ in rows[2:]
    ]


@cache
def differences() -> list[tuple[str, str, Any, Any]]:
    """(config, key, published value, ours) wherever the two differ."""
    found = []
    for name, values in PUBLISHED.items():
        cfg = load_config(f"configs/{name.split('/')[1]}.yaml")
        ours = {key: json.loads(json.dumps(value)) for key, value in leaves(cfg)}
        for key, value in values.items():
            if ours.get(key, ABSENT) != value:
                found.append((name, key, value, ours.get(key, ABSENT)))
    return found


def allows(row: Row, key: str, published: Any, ours: Any) -> bool:
    return (
        fnmatchcase(key, row.key)
        and (not row.published or published in row.published)
        and ours in row.ours
    )


def test_nothing_differs_but_what_the_table_says():
    rows = table()
    for name, key, published, ours in differences():
        matching = [row for row in rows if allows(row, key, published, ours)]
        assert len(matching) == 1, f"{name}: {key} is {published!r} published and {ours!r} here"


def test_every_row_and_every_value_of_the_table_is_needed():
    found = differences()
    for row in table():
        mine = [d for d in found if fnmatchcase(d[1], row.key)]
        assert mine, f"nothing differs in {row.key}"
        for value in row.published:
            assert any(d[2] == value for d in mine), f"{row.key} is nowhere {value!r}"


def test_keys_that_are_absent_here_are_accepted():
    assert all(is_published(key) for _, key, _, ours in differences() if ours == ABSENT)


@pytest.mark.parametrize("key", ["INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "CUDNN_BENCHMARK"])
def test_the_recipe_is_the_published_one(key):
    assert key not in {d[1] for d in differences()}
    assert all(key in values for values in PUBLISHED.values())
