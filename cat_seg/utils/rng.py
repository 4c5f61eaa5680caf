"""Seeding, saving and restoring all random generators that training uses."""

from __future__ import annotations

import logging
import random
import secrets
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng


def seed_run(seed: int) -> int:
    """Seed this process's generators and return the run's seed, the same on all ranks.

    Args:
        seed: the configured seed; if negative, a random one is drawn.
    """
    if seed < 0:
        seed = comm.all_gather(secrets.randbelow(2**31))[0]
        logging.getLogger(__name__).info("SEED is negative, drew %d", seed)
    seed_all_rng(seed + comm.get_rank())
    return seed


def rng_state() -> dict[str, Any]:
    """Return the state of Python's, NumPy's and PyTorch's generators as plain types and tensors."""
    numpy_state = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": [
            torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            numpy_state["state"]["pos"],
            numpy_state["has_gauss"],
            numpy_state["gauss"],
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore a state from `rng_state`; the CUDA part is skipped on a machine without a GPU."""
    random.setstate(state["python"])
    key, *rest = state["numpy"]
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
