"""Paired differences, checked against worked values."""

from __future__ import annotations

import pytest

from tools.ablation.statistics import compare


def test_the_interval_is_students() -> None:
    found = compare([3.0, 5.0, 4.0], [2.0, 2.0, 2.0])  # differences 1, 3, 2: t(0.975, 2) = 4.3027
    assert found.mean == pytest.approx(2.0)
    assert found.low == pytest.approx(2 - 4.30265 / 3**0.5, abs=1e-4)
    assert found.high == pytest.approx(2 + 4.30265 / 3**0.5, abs=1e-4)


def test_the_sign_test_leaves_ties_out() -> None:
    found = compare([1.0, 2.0, 3.0, 4.0, 5.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert (found.better, found.worse) == (5, 0)
    assert found.p == pytest.approx(2 / 32)
    mixed = compare([1.0, -1.0], [0.0, 0.0])
    assert (mixed.better, mixed.worse, mixed.p) == (1, 1, 1.0)


def test_one_seed_has_no_interval() -> None:
    found = compare([0.5], [0.5])
    assert (found.mean, found.low, found.high, found.p) == (0.0, None, None, 1.0)


@pytest.mark.parametrize(("values", "baseline"), [([], []), ([1.0], [1.0, 2.0])])
def test_unpaired_values_are_refused(values: list[float], baseline: list[float]) -> None:
    with pytest.raises(ValueError, match="one entry per seed"):
        compare(values, baseline)
