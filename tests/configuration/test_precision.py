"""What AMP.ENABLED and AMP.DTYPE mean on a device."""

from __future__ import annotations

import json

import pytest
import torch
from detectron2.config import get_cfg

from cat_seg import add_cat_seg_config
from cat_seg.configuration.precision import amp_dtype, precision
from cat_seg.errors import UserError


@pytest.fixture
def cfg():
    return add_cat_seg_config(get_cfg())


@pytest.mark.parametrize(
    ("device", "dtype", "name"),
    [
        ("cpu", "auto", "bfloat16"),
        ("cuda:1", "auto", "float16"),
        ("mps", "auto", "float16"),
        ("cpu", "float16", "float16"),
    ],
)
def test_evaluation_has_its_own_precision(cfg, device, dtype, name):
    cfg.MODEL.DEVICE, cfg.TEST.AMP.DTYPE = device, dtype
    cfg.SOLVER.AMP.ENABLED = True
    assert precision(cfg) == "float32" and amp_dtype(cfg, "TEST") is None
    cfg.TEST.AMP.ENABLED, cfg.SOLVER.AMP.ENABLED = True, False
    assert amp_dtype(cfg, "TEST") == getattr(torch, name) and amp_dtype(cfg) is None
    assert precision(json.loads(json.dumps(cfg))) == name


def test_what_the_cpu_lacks_is_refused_in_a_line(cfg, monkeypatch):
    cfg.merge_from_list(["TEST.AMP.ENABLED", True, "TEST.AMP.DTYPE", "float16"])
    cfg.MODEL.DEVICE = "cpu"

    def lacking(*_):
        raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'")

    monkeypatch.setattr("torch.nn.functional.linear", lacking)
    with pytest.raises(UserError, match=r"^TEST\.AMP\.DTYPE is 'float16', but .* to bfloat16$"):
        amp_dtype(cfg, "TEST")


def test_an_unknown_type_names_the_key(cfg):
    cfg.TEST.AMP.DTYPE = "half"
    with pytest.raises(UserError, match=r"^TEST\.AMP\.DTYPE is 'half'; set it to one of auto, fl"):
        amp_dtype(cfg, "TEST")
