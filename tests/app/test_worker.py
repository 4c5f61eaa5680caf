"""One computation at a time, which can be canceled."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from cat_seg.app.answers import Answers
from cat_seg.app.limits import Limits
from cat_seg.app.worker import Canceled, Worker
from cat_seg.errors import UserError
from cat_seg.inference import Segmenter


def test_canceled_computation_ends_and_the_next_answer_is_whole(
    models: list[Segmenter], photo: Path
) -> None:
    worker = Worker(models, Limits())
    expected = models[0].segment(photo, ["cat", "fog"]).confidence
    with worker.job("one") as canceled, pytest.raises(Canceled):
        assert worker.cancel("one")
        worker.segment(models[0], photo, ["boat", "fog"], canceled)
    with worker.job("two") as canceled:
        found = worker.segment(models[0], photo, ["cat", "fog"], canceled).confidence
    np.testing.assert_array_equal(found, expected)
    assert not worker.cancel("two")


def test_cancel_concerns_its_own_job(models: list[Segmenter], photo: Path) -> None:
    worker = Worker(models, Limits())
    ended: list[str] = []

    def wait() -> None:
        try:
            with worker.job("waiting"):
                ended.append("ran")
        except Canceled:
            ended.append("canceled")

    with worker.job("running") as canceled:
        thread = threading.Thread(target=wait)
        thread.start()
        while not worker.cancel("waiting"):
            pass
        thread.join(60)
        assert ended == ["canceled"]
        assert worker.segment(models[0], photo, ["cat"], canceled).names == ("cat",)


def test_answers_are_kept_up_to_a_size(models: list[Segmenter], photo: Path) -> None:
    result = models[0].segment(photo, ["cat", "fog"])
    answers = Answers(most_bytes=3 * 100 * 120 * (8 + 3 * 4 + 3))
    keys = [answers.add(result) for _ in range(3)]
    answers.get(keys[0])
    last = answers.add(result)
    assert answers.get(keys[0]) is answers.get(last) is result
    with pytest.raises(UserError, match="no longer kept"):
        answers.get(keys[1])
