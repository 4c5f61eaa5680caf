from __future__ import annotations

import pytest

from tools.figures.reading import cell_of, number_of, table_below, table_with

TEXT = """\
# One

Some words.

| name | a, b | |
|:---|--:|--:|
| **first** | 1,234 | x |
| `second` | 2.5 GB |

# Two

| name | other |
|---|---|
| first | 3 |
"""


def test_tables_are_found_by_the_line_above_and_by_a_heading():
    table = table_below(TEXT, "# One")
    assert list(table) == ["first", "second"]
    assert cell_of(table, "first", "a, b") == "1,234"
    assert cell_of(table, "second", "") == ""
    assert cell_of(table_below(TEXT, "# Two"), "first", "other") == "3"
    assert table_with(TEXT, "other") == table_below(TEXT, "# Two")
    assert cell_of(table_with(TEXT, "name"), "first", "other") == "3"  # the last one


def test_numbers_are_read_with_commas_and_exponents():
    assert number_of("1,234") == 1234
    assert number_of("6.7e-06") == 6.7e-06
    assert number_of("2.5 GB", r"([\d.]+) GB") == 2.5


def test_what_is_missing_is_named():
    table = table_below(TEXT, "# One")
    for call, problem in (
        (lambda: table_below(TEXT, "# Three"), "no line '# Three'"),
        (lambda: table_below(TEXT, "| first | 3 |"), "no table below"),
        (lambda: table_with(TEXT, "x"), "no table with the heading 'x'"),
        (lambda: cell_of(table, "third", "a, b"), "no row 'third'"),
        (lambda: cell_of(table, "first", "c"), "no column 'c'"),
        (lambda: number_of("x"), "'x' is not a number"),
        (lambda: number_of("x", "(y)"), "nothing matches"),
    ):
        with pytest.raises(LookupError, match=problem):
            call()
