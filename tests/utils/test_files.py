from __future__ import annotations

import errno
import fcntl
import os
import re

import pytest

from cat_seg.errors import UserError
from cat_seg.utils.files import atomic_write, drop_unfinished_line, exclusive_lock


def test_a_file_is_written_whole(tmp_path):
    for text in ("first", "second"):
        with atomic_write(tmp_path / "a.txt", "w") as file:
            file.write(text)
            assert not (tmp_path / "a.txt").exists() or text == "second"
        assert (tmp_path / "a.txt").read_text() == text
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_old_file(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "a.bin") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_it_is_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def note(*given, name=name, real=real):
            order.append(name)
            real(*given)

        monkeypatch.setattr(os, name, note)
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("text")
    assert order == ["fsync", "replace", "fsync"]


def test_one_at_a_time_in_a_folder(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    refused = pytest.raises(UserError, match=re.escape(f"is writing to {tmp_path}; wait"))
    with exclusive_lock(tmp_path), exclusive_lock(other), refused:
        exclusive_lock(tmp_path).__enter__()
    with exclusive_lock(tmp_path):
        assert os.listdir(tmp_path) == ["other"]


def test_nobody_is_kept_out_where_there_are_no_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive_lock(tmp_path), exclusive_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    ("before", "after"), [("a\nb\n", "a\nb\n"), ("a\nb", "a\n"), ("a", ""), ("", "")]
)
def test_an_unfinished_line_is_dropped(tmp_path, before, after):
    file = tmp_path / "lines"
    file.write_text(before)
    drop_unfinished_line(file)
    assert file.read_text() == after


def test_there_may_be_no_file_to_drop_a_line_from(tmp_path):
    drop_unfinished_line(tmp_path / "lines")
    assert not list(tmp_path.iterdir())
