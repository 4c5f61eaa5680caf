"""Faults are noticed, kept, and do not stop what comes after them."""

from __future__ import annotations

import pytest

from tests.fuzz import __main__ as long_run
from tests.fuzz import session as session_module
from tests.fuzz.properties import FaultError


@pytest.mark.parametrize(
    ("asked", "kind", "told"),
    [
        ("die", "died", "status -6"),
        ("hang", "hung", "no answer within 2 s"),
        ("fail", "failed", "ZeroDivisionError: a fault"),
    ],
)
def test_a_fault_is_noticed_and_the_next_file_is_read(session, monkeypatch, asked, kind, told):
    monkeypatch.setattr(session_module, "LIMIT", 2.0)
    outcome = session.read("fault", "ask.txt", asked.encode())
    assert outcome.is_fault
    assert outcome.kind == kind
    assert told in outcome.told
    monkeypatch.undo()
    assert session.read("fault", "ask.txt", b"nothing").kind == "answered"
    assert session.read("classes", "names.txt", b"\n").kind == "refused"


def test_the_long_run_keeps_what_broke_a_reader(session, tmp_path, monkeypatch, capsys):
    def property_of(kind, session, profile):
        def test():
            content = {"label": b"die", "image": b"nothing"}.get(kind, b"nothing")
            outcome = session.read("fault", "ask.txt", content)
            if outcome.is_fault:
                raise FaultError(kind, "ask.txt", content, outcome)

        return test

    class Borrowed:
        def __init__(self, folder):
            pass

        def __enter__(self):
            return session

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(long_run, "Session", Borrowed)
    monkeypatch.setattr(long_run, "seed", lambda number: lambda test: test)
    monkeypatch.setattr(long_run, "damaged_files_are_answered_or_refused", property_of)
    status = long_run.main(["--minutes", "0.02", "--output", str(tmp_path), "--first-seed", "5"])
    assert status == 1
    printed = capsys.readouterr().out
    assert "seed 5, image files: 1 answered\n" in printed
    assert "seed 5, label files: 1 died\n" in printed
    assert printed.endswith(f"1 faults in {tmp_path}\n")
    [kept] = tmp_path.glob("label_*_ask.txt")
    assert kept.read_bytes() == b"die"
    assert "label file died" in kept.with_name(f"{kept.name}.log").read_text()
