from __future__ import annotations

from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from cat_seg.data.class_names import LONGEST_NAME, MOST_NAMES, check_names, first_synonym
from cat_seg.data.vocabularies import vocabulary_from
from cat_seg.errors import UserError


@pytest.mark.parametrize(
    "name",
    [
        "été",
        "水",
        "مرحبا",
        "نمی\u200cخواهم",
        "👩\u200d🌾",
        "😀",
        "-",
        "'",
        '"',
        "50% {gray}",
        "C:\\x",
    ],
)
def test_names_in_any_writing(name):
    assert check_names([name, f" {name}2 "], "list") == [name, f"{name}2"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("\u200b", r"control character U\+200B"),
        ("red\u202eabc", r"control character U\+202E"),
        ("red\u2066abc", r"control character U\+2066"),
        ("soft\u00adhyphen", r"control character U\+00AD"),
        ("a\ufeffb", r"control character U\+FEFF"),
        ("red\x00", r"control character U\+0000"),
        ("red\x1b[31m", r"control character U\+001B"),
        ("\u200d", "no visible character"),
        ("\ufe0f", "no visible character"),
        ("\u3164", "no visible character"),
        ("\u2800, red", "no visible character"),
        ("&nbsp;", "no visible character"),
        ("&amp;#8203;", "no visible character"),
        ("x" * (LONGEST_NAME + 1), "2001 characters"),
    ],
)
def test_names_that_cannot_be_seen_or_read_are_refused(name, told):
    with pytest.raises(UserError, match=f"^list: class 1 has .*{told}") as caught:
        check_names(["red", name], "list")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_message_shows_letters_as_they_are():
    with pytest.raises(UserError, match="水"):
        check_names(["水\t" + "火"], "list")


@pytest.mark.parametrize(
    ("name", "expected"), [("road", "road"), (" road , route", "road"), ("a b,c", "a b")]
)
def test_first_synonym(name, expected):
    assert first_synonym(name) == expected


@pytest.mark.parametrize(
    "names",
    [
        ["red", "blue"],
        ("red", "blue"),
        np.array(["red", "blue"]),
        np.array(["red", "blue"], dtype=object),
        {"red": 1, "blue": 2}.keys(),
        {0: "red", 1: "blue"}.values(),
        "red, blue",
    ],
    ids=lambda names: type(names).__name__,
)
def test_names_from_python(names):
    found = vocabulary_from(names)
    assert found == ["red", "blue"]
    assert {type(name) for name in found} == {str}


def test_names_from_an_iterator_and_a_path(tmp_path: Path):
    assert vocabulary_from(name for name in ("red", "blue")) == ["red", "blue"]
    path = tmp_path / "names.txt"
    path.write_text("red\nblue")
    assert vocabulary_from(path) == vocabulary_from(str(path)) == ["red", "blue"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (None, "must be a list of class names or a string, not NoneType"),
        (3, "must be a list of class names or a string, not int"),
        (True, "must be a list of class names or a string, not bool"),
        (object(), "must be a list of class names or a string, not object"),
        (np.array("red"), "must be a list of class names or a string, not ndarray"),
        ({"red", "blue"}, "is a set, which has no order"),
        (frozenset(["red"]), "is a frozenset, which has no order"),
        ({0: "red"}, "is a dict"),
        (b"red, blue", "is a bytes"),
        ([b"red"], "entry 0 is of type bytes"),
        (["red", None], "entry 1 is null"),
        ([["red"]], "entry 0 is a list"),
        (np.array([["red"]]), "entry 0 is of type ndarray"),
        (np.arange(2), "entry 0 is of type int64"),
        (range(3), "entry 0 is a number"),
        ([], "no class names"),
        (iter(()), "no class names"),
        (repeat("red"), f"more than {MOST_NAMES} class names"),
        (["red", "red "], "classes 0 and 1 are both 'red'"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_anything_else_from_python_is_refused(names, told):
    with pytest.raises(UserError, match=f"^the vocabulary.*{told}"):
        vocabulary_from(names)
