"""Settings of the process that a measurement runs under."""

from __future__ import annotations

import torch

from tools.benchmarking.options import build_config, parse
from tools.benchmarking.workloads import machine_settings


def settings() -> tuple[str, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark


def test_float32_is_computed_as_the_config_says_and_as_before_afterwards(tmp_path):
    options = parse(["--device", "cpu", "MODEL.TF32", "False"])
    cfg = build_config(options, tmp_path)
    before = settings()
    for tf32, expected in ((True, ("high", True, True)), (False, ("highest", False, True))):
        cfg.MODEL.DEVICE, cfg.MODEL.TF32 = "cuda", tf32
        with machine_settings(options, cfg):
            assert settings() == expected
        assert settings() == before
