from __future__ import annotations

import numpy as np
import pytest

from cat_seg.errors import UserError
from cat_seg.evaluation.image_counts import (
    counts_of_image,
    image_counts_file,
    read_image_counts,
    write_image_counts,
)


def test_classes_that_an_image_does_not_have_take_no_place():
    confusion = np.zeros((847, 848), np.int64)
    confusion[3, 3], confusion[3, 846], confusion[800, 847] = 10, 5, 7  # the last one is ignored
    assert counts_of_image(confusion).tolist() == [[3, 10, 10, 15], [846, 0, 5, 0]]


def test_what_is_written_is_read_again_and_small(tmp_path):
    """2000 images with 40 of 847 classes each."""
    generator = np.random.default_rng(0)
    entries = []
    for index in range(2000):
        counts = generator.integers(0, 90_000, (40, 4), dtype=np.uint32)
        counts[:, 0] = np.sort(generator.choice(847, 40, replace=False))
        entries.append((f"ADE_val_{index:08}.jpg", counts))
    file = tmp_path / "new" / "results.json"
    write_image_counts(file, entries, [f"class {index}" for index in range(847)])
    assert image_counts_file(file).stat().st_size < 1.2e6
    found = read_image_counts(file)
    assert found.images == [name for name, _ in entries]
    assert found.classes[846] == "class 846"
    stacked = np.concatenate([counts for _, counts in entries])
    assert np.array_equal(found.rows, np.repeat(np.arange(2000), 40))
    for column, values in zip(stacked.T, found[3:], strict=True):
        assert np.array_equal(column, values)


def test_a_dataset_without_a_usable_image_has_an_empty_file(tmp_path):
    write_image_counts(tmp_path / "results.json", [], ["a"])
    found = read_image_counts(tmp_path / "results.json")
    assert (found.images, found.classes, len(found.right)) == ([], ["a"], 0)


def test_missing_and_damaged_files_are_refused(tmp_path):
    file = tmp_path / "results.json"
    with pytest.raises(UserError, match=r"has no image_counts\.npz.*evaluate again"):
        read_image_counts(file)
    write_image_counts(file, [("a.jpg", np.array([[0, 1, 2, 3]], np.uint32))], ["a"])
    content = dict(np.load(image_counts_file(file)))
    damaged = [
        {"right": np.zeros(2)},
        {"lengths": np.array([3])},
        {"columns": np.array([1])},
        {"images": np.array([{}], dtype=object)},
        {"classes": np.array(1)},
    ]
    for change in damaged:
        np.savez(image_counts_file(file), **content | change)
        with pytest.raises(UserError, match="does not hold image counts"):
            read_image_counts(file)
    image_counts_file(file).write_bytes(b"PK")
    with pytest.raises(UserError, match="does not hold image counts"):
        read_image_counts(file)
