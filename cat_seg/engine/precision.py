"""Floating-point precision and determinism of training and evaluation."""

from __future__ import annotations

import os

import torch
from detectron2.config import CfgNode

from cat_seg.errors import UserError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# CPUs are good at bfloat16. On GPUs, float16 is the published choice and all that older ones have.
AUTO = {"cuda": torch.float16, "cpu": torch.bfloat16}

# The memory that cuBLAS takes. With these values, it computes the same every time.
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")


def amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """Return the dtype that training autocasts to, or None for full precision.

    Args:
        cfg: reads SOLVER.AMP.ENABLED, SOLVER.AMP.DTYPE and MODEL.DEVICE.

    Raises:
        UserError: the dtype is unknown, or the GPU does not support it.
    """
    name, device = cfg.SOLVER.AMP.DTYPE, torch.device(cfg.MODEL.DEVICE).type
    if name != "auto" and name not in DTYPES:
        raise UserError(f"SOLVER.AMP.DTYPE is {name!r}; set it to one of auto, {', '.join(DTYPES)}")
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    dtype = AUTO[device] if name == "auto" else DTYPES[name]
    if (
        device == "cuda"
        and dtype == torch.bfloat16
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise UserError(
            "SOLVER.AMP.DTYPE is 'bfloat16', which this GPU lacks or only emulates; set it to "
            "float16"
        )
    return dtype


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
