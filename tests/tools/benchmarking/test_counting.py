"""What a full-size training step asks of a GPU does not grow unnoticed. Counts have no noise."""

from __future__ import annotations

import pytest

from tools.benchmarking.counting import run_count
from tools.benchmarking.options import parse

# Operations and peak memory (GiB) of batch 1 with 171 classes; see docs/performance.md. PyTorch's
# releases differ by a few operations.
BOUNDS = {
    "configs/vitb_384_oft.yaml": (1660, 5.1),
    "configs/vitb_384_hyperbolic.yaml": (1710, 5.05),
}


@pytest.mark.parametrize("config", BOUNDS)
def test_a_training_step_stays_within_its_counts(config):
    options = parse(["--mode", "count", "--device", "cpu", "--config-file", config])
    found = run_count(options, lambda line: None)
    operations, gigabytes = BOUNDS[config]
    assert 1000 < found["counts"]["operations"] <= operations
    assert found["counts"]["tensors moved"] == 2  # image and labels
    assert 2 < found["memory"]["peak"] / 2**30 <= gigabytes
