"""Damaged files of every kind: an answer or a UserError, never anything else."""

from __future__ import annotations

import pytest

from tests.fuzz.properties import KINDS, damaged_files_are_answered_or_refused
from tests.fuzz.seeds import seeds


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_answered(session, kind):
    for name, content in seeds()[kind].items():
        assert session.read(kind, name, content).kind == "answered", name


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_another_kind_are_answered_or_refused(session, kind):
    for other in KINDS:
        for name, content in seeds()[other].items():
            outcome = session.read(kind, name, content)
            assert not outcome.is_fault, (name, outcome)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_answered_or_refused(session, kind):
    before = session.counts["refused"]
    damaged_files_are_answered_or_refused(kind, session, "quick")()
    assert session.counts["refused"] > before
