"""The hyperbolic maps against rows recorded from the published modules, clamps and cap included.

tests/golden/adapter_rows.npz has 21 rows of lengths 0 and 1e-7 to 200, and what HyperCLIP, HyRo and
HyperCLIP++ make of them, with gradients.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cat_seg.modeling import poincare
from cat_seg.modeling.clip.adapters.oft import cayley
from cat_seg.utils.paths import REPO_ROOT
from tests.golden.weights_recipe import recipe_value

GOLDEN = dict(np.load(REPO_ROOT / "tests" / "golden" / "adapter_rows.npz"))
ROWS = torch.from_numpy(GOLDEN["rows"])
CASES = [(system, c) for system in ("hyper_clip", "hyro", "hyper_clip_pp") for c in (1, 0.01)]
cases = pytest.mark.parametrize(("system", "c"), CASES)


def recipe(name, *shape):
    return torch.from_numpy(recipe_value(f"adapter_rows.{name}", shape))


def parameters(system):
    """M, and T where there is one."""
    found = {"matrix": recipe("hyperbolic_attn.weights", 2, 128, 128)}
    if system == "hyro":
        found["rotation"] = recipe("hyperbolic_attn.rotation_weights", 1, 256, 256)
    return {name: value.requires_grad_() for name, value in found.items()}


def adapted(system, c, rows, matrix, rotation=None):
    q = None if rotation is None else cayley(-2 * rotation)
    return poincare.transform(rows, matrix, c, q)


@cases
def test_every_row(system, c):
    expected = torch.from_numpy(GOLDEN[f"{system}/c{c}/out"])
    found = adapted(system, c, ROWS, **parameters(system)).detach()
    error = (found - expected).double().norm(dim=1)
    # Another order of the operations would be off by up to 2e-5 near the cap.
    assert (error <= 2e-6 * expected.double().norm(dim=1)).all()


@cases
@pytest.mark.parametrize("part", ["inside", "capped"])
def test_gradients(system, c, part):
    lengths = ROWS.double().norm(dim=1) * c**0.5
    rows = (lengths > 0) & (lengths < 3.42) if part == "inside" else lengths > 3.876
    own = parameters(system)
    cotangent = recipe("gradient", 21, 256)[rows]
    (adapted(system, c, ROWS[rows], **own) * cotangent).sum().backward()
    for name, parameter in own.items():
        expected = torch.from_numpy(GOLDEN[f"{system}/c{c}/grad_{part}/{name}"])
        error = (parameter.grad[:, ::8] - expected).norm()
        assert error <= 5e-6 * expected.norm(), name


@cases
def test_a_row_of_zeros_leaves_gradients_finite(system, c):
    """The published modules give NaN for the whole matrix."""
    own = parameters(system)
    adapted(system, c, ROWS, **own).sin().sum().backward()
    for parameter in own.values():
        assert torch.isfinite(parameter.grad).all()
