"""The confusion matrix beside results.json."""

from __future__ import annotations

import numpy as np
import pytest

from cat_seg.errors import UserError
from cat_seg.evaluation.confusion_file import confusion_file, read_confusion, write_confusion

COUNTS = np.arange(12).reshape(3, 4)
NAMES = ["cat", "dog, hound", "草"]


def test_it_comes_back(tmp_path):
    results = tmp_path / "inference/pets/results.json"
    write_confusion(results, COUNTS, NAMES)
    found = read_confusion(results)
    assert np.array_equal(found.counts, COUNTS) and found.names == NAMES
    assert [path.name for path in results.parent.iterdir()] == ["confusion.npz"]


def test_a_large_one_is_compact(tmp_path):
    names = [f"class {index}" for index in range(847)]
    counts = np.zeros((847, 848), dtype=np.int64)
    np.fill_diagonal(counts, 10**6)
    write_confusion(tmp_path / "results.json", counts, names)
    assert confusion_file(tmp_path / "results.json").stat().st_size < 100_000


def test_a_missing_one_is_told_from_a_bad_one(tmp_path):
    results = tmp_path / "results.json"
    with pytest.raises(FileNotFoundError):
        read_confusion(results)
    file = confusion_file(results)
    objects = np.array([print], dtype=object)
    for content in (
        {"counts": COUNTS, "names": np.array(NAMES[:2])},
        {"counts": COUNTS},
        {"counts": COUNTS.astype(float), "names": np.array(NAMES)},
        {"counts": COUNTS, "names": objects},  # would be unpickled
    ):
        np.savez(file, **content)
        with pytest.raises(UserError, match=r"confusion\.npz.*evaluate again"):
            read_confusion(results)
    for damaged in (b"", b"no archive", file.read_bytes()[:100]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"confusion\.npz.*evaluate again"):
            read_confusion(results)
