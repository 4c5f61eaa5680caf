"""The optimizer, its parameter groups and gradient clipping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import (
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
    reduce_param_groups,
)
from torch import Tensor, nn

from cat_seg.configuration.checks import check_choice

if TYPE_CHECKING:
    from cat_seg.cat_seg_model import CATSeg


def build_optimizer(cfg: CfgNode, model: CATSeg) -> torch.optim.Optimizer:
    """Build AdamW or SGD for the trainable parameters of `model`.

    Args:
        cfg: reads SOLVER.OPTIMIZER, MOMENTUM (SGD), BASE_LR, CLIP_MULTIPLIER, WEIGHT_DECAY*,
            BIAS_LR_FACTOR and CLIP_GRADIENTS. A CLIP_GRADIENTS.CLIP_VALUE of 0 turns clipping off.
        model: has `clip_parameters()`, whose learning rate is BASE_LR * CLIP_MULTIPLIER.

    Raises:
        UserError: SOLVER.OPTIMIZER or SOLVER.CLIP_GRADIENTS.CLIP_TYPE is unknown.
    """
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    if clipping.ENABLED:
        check_choice(cfg, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE")
    optimizer = _plain_optimizer(cfg, parameter_groups(cfg, model))
    if not clipping.ENABLED or clipping.CLIP_VALUE <= 0:
        return optimizer
    if clipping.CLIP_TYPE == "full_model":
        _clip_whole_model(optimizer, clipping.CLIP_VALUE, clipping.NORM_TYPE)
        return optimizer
    return maybe_add_gradient_clipping(cfg, optimizer)


def _plain_optimizer(cfg: CfgNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    check_choice(cfg, "SOLVER.OPTIMIZER")
    if cfg.SOLVER.OPTIMIZER == "SGD":
        return torch.optim.SGD(groups, cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM)
    return torch.optim.AdamW(groups)


def parameter_groups(cfg: CfgNode, model: CATSeg) -> list[dict[str, Any]]:
    """Return one group per pair of learning rate and weight decay, in a fixed order.

    Norm layers use WEIGHT_DECAY_NORM, nn.Embedding uses WEIGHT_DECAY_EMBED, and all others use
    WEIGHT_DECAY.
    """
    solver = cfg.SOLVER
    params = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    embeddings = (m.weight for m in model.modules() if isinstance(m, nn.Embedding))
    # Later entries override earlier ones for the same parameter.
    params.append({"params": _trainable(embeddings), "weight_decay": solver.WEIGHT_DECAY_EMBED})
    params.append(
        {
            "params": _trainable(model.clip_parameters()),
            "lr": solver.BASE_LR * solver.CLIP_MULTIPLIER,
        }
    )
    return reduce_param_groups(params)


def _trainable(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def _clip_whole_model(optimizer: torch.optim.Optimizer, max_norm: float, norm_type: float) -> None:
    """Clip the joint norm of all gradients before each step, after GradScaler has unscaled them."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    optimizer.register_step_pre_hook(clip)
