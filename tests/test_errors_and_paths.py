"""One-line errors, and where relative paths point to."""

from __future__ import annotations

import os
import pickle

import pytest

from cat_seg.errors import UserError, fail, one_line_errors, printable
from cat_seg.paths import REPO_ROOT, resolve


def test_fail_prints_one_line_and_exits_with_2(capsys):
    with pytest.raises(SystemExit) as exit_info:
        fail("no file a.json")
    assert exit_info.value.code == 2
    captured = capsys.readouterr()
    assert captured.err == "error: no file a.json\n"
    assert captured.out == ""


def test_entry_point_ends_with_the_error_line(capsys):
    @one_line_errors
    def main():
        raise UserError("MODEL.DEVICE: no GPU here")

    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == "error: MODEL.DEVICE: no GPU here\n"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Ünï—код名.png", "Ünï—код名.png"),
        (os.fsdecode(b"bad_\xff_byte"), r"bad_\udcff_byte"),
        ("\ud83d", r"\ud83d"),
        ("a\nb\tc\x1b[31m", r"a\nb\tc\x1b[31m"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
    ],
)
def test_any_file_name_is_printed_in_one_line(name, written):
    assert printable(name) == printable(written) == written
    error = UserError(f"cannot read {name}")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == f"cannot read {written}"
    assert len(str(error).encode().splitlines()) == 1


def test_entry_point_passes_arguments_and_result_on():
    @one_line_errors
    def main(first, *, second):
        """What it does."""
        return first + second

    assert main(1, second=2) == 3
    assert main.__name__ == "main" and main.__doc__ == "What it does."


def test_other_errors_keep_their_traceback():
    @one_line_errors
    def main():
        raise ValueError("a defect, not an input")

    with pytest.raises(ValueError, match="a defect") as error:
        main()
    assert not isinstance(error.value, UserError)


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


def test_absolute_and_existing_paths_stay(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert resolve(str(tmp_path / "absent")) == tmp_path / "absent"
    # What is here goes before what the repository has under the same name.
    assert resolve("configs/config.yaml").resolve() == tmp_path / "configs" / "config.yaml"


def test_relative_paths_also_resolve_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("configs/config.yaml") == REPO_ROOT / "configs" / "config.yaml"
    assert (REPO_ROOT / "cat_seg" / "paths.py").is_file()


def test_a_path_that_is_nowhere_stays_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(resolve("no/such.json")) == "no/such.json"


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/weights.pth") == tmp_path / "weights.pth"
