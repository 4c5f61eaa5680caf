from __future__ import annotations

import pytest

from cat_seg.data.vocabularies import load_vocabulary
from cat_seg.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Write a class list of a name and content, and read it."""

    def write_and_read(name: str, content: str | bytes) -> list[str]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_vocabulary(str(path))

    return write_and_read


@pytest.mark.parametrize(
    "content",
    [
        "red\nblue",
        "red\nblue\n",
        "red\r\nblue\r\n",
        "\ufeffred\nblue\n\n  \n\n",
        " red\t\nblue \r\n",
    ],
)
def test_a_line_is_a_name(read, content):
    assert read("names.txt", content) == ["red", "blue"]


@pytest.mark.parametrize(
    "lines",
    [
        ["1 euro coin"],
        ["2 euro coin", "3 euro coin"],
        ["1 cent coin", "2 cent coin", "5 cent coin"],
        ["red", "1 euro coin"],
        ["3d printer", "4x4 car"],
        ["t-shirt", "-"],
        ["thing 0", "thing 1"],
        ["0", "1"],
    ],
)
def test_names_with_numbers_and_hyphens_are_names(read, lines):
    assert read("names.txt", "\n".join(lines)) == lines


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("\nred\nblue\n", "line 1 is blank"),
        ("red\r\nblue\r\n\r\ngreen\r\n", "line 3 is blank"),
        ("red\n \u3000\t\nblue", "line 2 is blank"),
        ("red\n\x0c\nblue", "line 2 is blank"),
        ("# my classes\nred\n", r"line 1 looks like a comment \('# my classes'\)"),
        ("red\n  // green\n", "line 2 looks like a comment"),
        ("0 red\n1 blue\n", r"begins with an index \('0 red'\)"),
        ("1 red\n2 blue\n", "begins with an index"),
        ("0: red\n1: blue", "begins with an index"),
        ("0,red\n1,blue", "begins with an index"),
        ("0\tred\n1\tblue", "begins with an index"),
        ("[0] red\n[1] blue", "begins with an index"),
        ("1) red\n2) blue", "begins with an index"),
        ("0 red", "begins with an index"),
        ("- red\n- blue", r"begins with a bullet \('- red'\)"),
        ('["red", "blue"]\n', r"contains a JSON list; rename it to names\.json"),
        ("red\u2028blue\n", r"class 0 has the control character U\+2028"),
        ("red\nblue\x0cgreen\n", r"class 1 has the control character U\+000C"),
        ("red\rblue\r", r"class 0 has the control character U\+000D"),
        ("red\x85blue", r"class 0 has the control character U\+0085"),
        ("red\nblue\nred", "classes 0 and 2 are both 'red'"),
        ("", "has no class names"),
        ("\n\n  \n", "has no class names"),
    ],
)
def test_a_text_file_with_more_than_names_is_refused(read, content, told):
    with pytest.raises(UserError, match=rf"names\.txt.*{told}") as caught:
        read("names.txt", content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["names.txt", "names.json"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('["red", "blue"]'.encode("utf-16"), "is UTF-16 text"),
        ('["red", "blue"]'.encode("utf-16-be"), "is UTF-16 text"),
        (b'["caf\xe9", "red"]', "is not UTF-8 text"),
    ],
)
def test_other_encodings_are_refused(read, name, content, told):
    with pytest.raises(UserError, match=rf"{name} {told}.*save the class list as UTF-8"):
        read(name, content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"0": "red", "1": "blue"}', "but an object; write only the names, in index order"),
        ('[{"id": 0, "name": "red"}]', "entry 0 is an object"),
        ('["red", null]', "entry 1 is null"),
        ('[["red"]]', "entry 0 is a list"),
        ('["red", true]', "entry 1 is a boolean"),
        ('"red"', "but a string"),
        ("NaN", "but a number"),
        ("['red', 'blue']", "line 1 column 2 .*straight double quotes, not '"),
        ("[“red”]", "line 1 column 2 .*straight double quotes, not “"),
        ('["red",\n"blue",\n]', r"line 3 column 1 .*remove the comma before \]"),
        ('["red", "blue"', "line 1 column 15 .*the file ends before the list does"),
        ("", "the file is empty"),
        ('["red" "blue"]', "line 1 column 8"),
        ("[" * 100_000, "too deeply"),
        ("[" + "1" * 5000 + "]", "a number is too long"),
        (r'["red\tsquare"]', r"class 0 has the control character U\+0009 .*'red\\tsquare'"),
        (r'["red", "blue\ncircle"]', r"class 1 has the control character U\+000A"),
        (r'["\ud800"]', r"class 0 has the control character U\+D800"),
    ],
)
def test_a_json_file_without_a_list_of_names_is_refused(read, content, told):
    with pytest.raises(UserError, match=rf"names\.json.*{told}") as caught:
        read("names.json", content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["a\0b.txt", "~no_such_user/names.txt", "a" * 5000 + ".json"])
def test_a_path_that_cannot_be_is_refused(path):
    with pytest.raises(UserError, match="cannot read the class list"):
        load_vocabulary(path)
