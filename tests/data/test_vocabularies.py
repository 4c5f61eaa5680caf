from __future__ import annotations

import pytest

from cat_seg.data.vocabularies import (
    load_vocabulary,
    parse_vocabulary,
    shipped_names,
    shipped_path,
    vocabulary_from,
)
from cat_seg.errors import UserError


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("coco", 171, "person", "wood"),
        ("ade150", 150, "wall", "flag"),
        ("ade847", 847, "wall", "adding machine, totalizer, totaliser"),
        ("pc59", 59, "aeroplane", "wood"),
        ("pc459", 459, "accordion", "wool"),
        ("voc20", 20, "aeroplane", "tvmonitor"),
        ("voc20b", 59, "aeroplane", "wood"),
    ],
)
def test_shipped_vocabularies(name, count, first, last):
    names = parse_vocabulary(name)
    assert (len(names), names[0], names[-1]) == (count, first, last)
    assert names == load_vocabulary(f"datasets/{name}.json")


def test_the_background_vocabulary_starts_with_the_twenty_classes():
    assert parse_vocabulary("voc20b")[:20] == parse_vocabulary("voc20")


def test_relative_paths_resolve_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(load_vocabulary("datasets/voc20.json")) == 20


def test_names_keep_order_and_synonyms_but_no_outer_blanks(tmp_path):
    path = tmp_path / "names.json"
    path.write_text('\ufeff[" zebra", "road, route ", "café"]', encoding="utf-8")
    assert load_vocabulary(str(path)) == ["zebra", "road, route", "café"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat, dog", ["cat", "dog"]),
        (" polar bear ", ["polar bear"]),
        ("cat,dog,,", ["cat", "dog"]),
        ("coco, cat", ["coco", "cat"]),
    ],
)
def test_typed_names(text, expected):
    assert parse_vocabulary(text) == expected


def test_files_by_suffix(tmp_path):
    text, as_json = tmp_path / "names.txt", tmp_path / "names.json"
    text.write_text("road, route\n  cat\n\n \n")
    as_json.write_text('["road, route", "cat"]')
    for read in (load_vocabulary, parse_vocabulary):
        assert read(str(text)) == read(str(as_json)) == ["road, route", "cat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "is not valid JSON"),
        (b'{"cat": 1}', "is not a list of class names"),
        (b'["cat", 3]', "is not a list of class names"),
        (b"[]", "has no class names"),
        (b'["cat", " "]', "class 1 has an empty name"),
        (b'["cat", ", feline"]', "class 1 has an empty name"),
        (b'["cat", "dog", "cat "]', "classes 0 and 2 are both 'cat'"),
        (b'["caf\xe9"]', "is not UTF-8"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, content, message):
    path = tmp_path / "names.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_vocabulary(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.json", "absent.txt"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(UserError, match=rf"cannot read the class list .*{name}"):
        parse_vocabulary(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "message"),
    [("  ", "has no class names"), (",", "has no class names"), ("a, b, a", "are both 'a'")],
)
def test_bad_typed_names(text, message):
    with pytest.raises(UserError, match=message):
        parse_vocabulary(text)


LIKE_A_FILE = "looks like a path, but class lists end in .json or .txt"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ade151", "did you mean ade150?"),
        ("ade_150", "did you mean ade150?"),
        ("ADE150", "did you mean ade150?"),
        ("ade20k", "did you mean ade150?"),
        ("A-150", "did you mean ade150?"),
        ("ad150", "did you mean ade150?"),
        ("pc-59", "did you mean pc59?"),
        ("pc60", "did you mean pc59?"),
        ("voc20c", "did you mean voc20?"),
        ("coco171", "did you mean coco?"),
        ("Coco", "did you mean coco?"),
        ("quickstrat", "did you mean quickstart?"),
        ("quickstart-seen", "did you mean quickstart_seen?"),
        *((text, LIKE_A_FILE) for text in ("names.jsn", "mine.csv", "mine.yaml", ".csv")),
        *((text, LIKE_A_FILE) for text in ("lists/mine", "./mine", "../mine", "/mine", "~/mine")),
        *((text, LIKE_A_FILE) for text in ("lists/car", "datasets/ade151", r"lists\mine", "a/b/c")),
        *((text, LIKE_A_FILE) for text in ("./my lists/mine", "here/a list", "my list.csv")),
    ],
)
def test_a_list_that_is_not_there_is_no_class(tmp_path, monkeypatch, text, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for name in ("here/a list", "my list.csv"):
        (tmp_path / name).touch()
    for parse in (parse_vocabulary, vocabulary_from):
        with pytest.raises(UserError) as caught:
            parse(f" {text} ")
        message = str(caught.value)
        assert message.startswith(f"vocabulary {text!r} ") and "\n" not in message
        assert problem in message
        assert f"(shipped lists: {', '.join(shipped_names())})" in message
        assert message.endswith(f"if it is a class, add a comma: {text + ','!r}")
    assert parse_vocabulary(f"{text},") == vocabulary_from([text]) == [text]


@pytest.mark.parametrize(
    "text",
    [
        *("cat", "Road", "t-shirt", "traffic_light", "café", "水", "x", "road sign", "background"),
        *("tv/monitor", "Car/Truck", "no. 5", "no.5", "car.", "u.s.a", "st. bernard", "24.5 mm"),
        *("mp3", "mp3 player", "h2o", "7up", "f150", "boeing747", "a380", "b52", "ps5", "covid19"),
        *("pc", "cocoa", "coca-cola", "coconut", "vocalist", "adenoid", "quicksand", "pc59 user"),
        *("and/or sign", "my list.csv"),
    ],
)
def test_a_class_alone_is_a_class(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat").mkdir()
    assert parse_vocabulary(text) == vocabulary_from(text) == [text]


def test_every_class_of_the_shipped_lists_is_a_class():
    for name in shipped_names():
        for synonyms in load_vocabulary(shipped_path(name)):
            for synonym in map(str.strip, synonyms.split(",")):
                assert parse_vocabulary(synonym) == [synonym]


def test_a_long_text_is_named_in_short():
    with pytest.raises(UserError, match=r"^vocabulary './x+\.\.\.' looks like a path") as caught:
        parse_vocabulary("./" + "x" * 5000)
    assert len(str(caught.value)) < 500
