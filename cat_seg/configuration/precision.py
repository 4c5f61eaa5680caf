"""Floating-point precision and determinism of training and evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode

from cat_seg.errors import UserError

FLOAT32 = "float32"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# CPUs are good at bfloat16. On GPUs, float16 is the published choice and all that older ones have.
AUTO = {"cuda": "float16", "mps": "float16", "cpu": "bfloat16"}

# The memory that cuBLAS takes. With these values, it computes the same every time.
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")


def precision(config: Mapping[str, Any], section: str = "TEST") -> str:
    """Return "float32", "float16" or "bfloat16": what a section's AMP means on MODEL.DEVICE.

    Args:
        config: a full config, also as read back from a file.
        section: "TEST" or "SOLVER".
    """
    amp = config[section]["AMP"]
    if not amp["ENABLED"]:
        return FLOAT32
    kind = config["MODEL"]["DEVICE"].partition(":")[0]
    return AUTO[kind] if amp["DTYPE"] == "auto" else amp["DTYPE"]


def amp_dtype(cfg: CfgNode, section: str = "SOLVER") -> torch.dtype | None:
    """Return the dtype that training or inference autocasts to, or None for full precision.

    Args:
        cfg: reads AMP.ENABLED and AMP.DTYPE of the section, and MODEL.DEVICE.
        section: "SOLVER" (training) or "TEST" (evaluation and prediction).

    Raises:
        UserError: the dtype is unknown, or the device does not support it.
    """
    name, device = cfg[section].AMP.DTYPE, torch.device(cfg.MODEL.DEVICE).type
    key = f"{section}.AMP.DTYPE"
    if name != "auto" and name not in DTYPES:
        raise UserError(f"{key} is {name!r}; set it to one of auto, {', '.join(DTYPES)}")
    if not cfg[section].AMP.ENABLED:
        return None
    dtype = DTYPES[precision(cfg, section)]
    if (
        device == "cuda"
        and dtype == torch.bfloat16
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise UserError(
            f"{key} is 'bfloat16', which this GPU lacks or only emulates; set it to float16"
        )
    if device == "cpu" and dtype == torch.float16 and not _cpu_computes(dtype):
        raise UserError(f"{key} is 'float16', but PyTorch lacks it on a CPU; set it to bfloat16")
    return dtype


def _cpu_computes(dtype: torch.dtype) -> bool:
    """Return whether products and convolutions autocast to `dtype` on a CPU."""
    maps = torch.ones(1, 1, 3, 3)
    try:
        with torch.autocast("cpu", dtype=dtype):
            results = F.linear(maps, maps[0, 0]), F.conv2d(maps, maps)
    except RuntimeError:
        return False
    return all(result.dtype == dtype for result in results)


def set_float32_precision(cfg: CfgNode) -> None:
    """Allow or forbid TF32 in float32 matrix products and convolutions on a GPU.

    The setting applies to the whole process. It changes nothing on a CPU, where PyTorch's "high"
    can mean bfloat16 products instead.

    Args:
        cfg: reads MODEL.TF32 and MODEL.DEVICE.
    """
    if torch.device(cfg.MODEL.DEVICE).type != "cuda":
        return
    torch.set_float32_matmul_precision("high" if cfg.MODEL.TF32 else "highest")
    torch.backends.cudnn.allow_tf32 = cfg.MODEL.TF32


def set_determinism(cfg: CfgNode) -> None:
    """With MODEL.DETERMINISTIC, restrict a GPU to deterministic algorithms.

    See docs/distributed.md for what they guarantee. The setting applies to the whole
    process, which must not have used the GPU yet. PyTorch then raises an error for an operation
    that has no deterministic algorithm. It changes nothing on a CPU.

    Args:
        cfg: reads MODEL.DETERMINISTIC and MODEL.DEVICE.

    Raises:
        UserError: the environment variable CUBLAS_WORKSPACE_CONFIG has another value than cuBLAS
            needs.
    """
    if not cfg.MODEL.DETERMINISTIC or torch.device(cfg.MODEL.DEVICE).type != "cuda":
        return
    # Read when cuBLAS starts.
    workspace = os.environ.setdefault(WORKSPACE, DETERMINISTIC_WORKSPACES[0])
    if workspace not in DETERMINISTIC_WORKSPACES:
        raise UserError(
            f"MODEL.DETERMINISTIC is True, but the environment variable {WORKSPACE} is "
            f"{workspace!r}; unset it, or set it to {' or '.join(DETERMINISTIC_WORKSPACES)}"
        )
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # it chooses algorithms by their speed
