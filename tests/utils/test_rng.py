from __future__ import annotations

import random

import numpy as np
import torch

from cat_seg.utils.rng import rng_state, seed_run, set_rng_state


def draw() -> list[float]:
    """One number of each kind; NumPy's and Python's normal numbers come in pairs."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.rand(1)),
    ]


def test_the_state_can_be_saved_and_put_back(tmp_path):
    seed_run(3)
    draw()
    torch.save(rng_state(), tmp_path / "state.pth")
    expected = [draw(), draw()]
    set_rng_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert [draw(), draw()] == expected


def test_a_seed_fixes_every_generator():
    assert seed_run(3) == 3
    expected = draw()
    seed_run(3)
    assert draw() == expected
    seed_run(4)
    assert not set(draw()) & set(expected)


def test_a_negative_seed_draws_a_new_one_each_time(log):
    one, other = seed_run(-1), seed_run(-1)
    assert one != other
    assert one >= 0
    assert f"drew {one}" in log.text
    drawn = draw()
    seed_run(other)
    assert draw() == drawn
