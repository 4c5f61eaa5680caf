"""Validation of config values before anything is built."""

from __future__ import annotations

import math
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

from cat_seg.errors import UserError

# Numeric keys, grouped by their allowed range.
FROM_1 = (
    "INPUT.MAX_SIZE_TEST",
    "INPUT.MAX_SIZE_TRAIN",
    "MODEL.ADAPTER.HYRO.BLOCK_SIZE",
    "MODEL.ADAPTER.HYRO.ROTATION_SIZE",
    "MODEL.ADAPTER.LORA.RANK",
    "MODEL.HYPERBOLIC.BLOCK_SIZE",
    "MODEL.HYPERSPHERICAL.AFR_REDUCTION",
    "MODEL.MASK_FORMER.SIZE_DIVISIBILITY",
    "MODEL.SEM_SEG_HEAD.APPEARANCE_GUIDANCE_PROJ_DIM",
    "MODEL.SEM_SEG_HEAD.TEXT_GUIDANCE_PROJ_DIM",
    "SOLVER.ACCUMULATION_STEPS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.MAX_ITER",
    "SOLVER.NUM_DECAYS",
    "TEST.AUG.MAX_SIZE",
    "TEST.IMS_PER_BATCH",
)
FROM_0 = (
    "DATALOADER.NUM_WORKERS",
    "INPUT.MIN_SIZE_TEST",
    "MODEL.HYPERBOLIC.RADIUS_PERIOD",
    "MODEL.HYPERSPHERICAL.HPA_SEPARATION_WEIGHT",
    "MODEL.HYPERSPHERICAL.LOSS_WEIGHT",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
    "SOLVER.CLIP_MULTIPLIER",
    "SOLVER.DIAGNOSTICS_PERIOD",
    "SOLVER.MOMENTUM",
    "SOLVER.POLY_LR_POWER",
    "SOLVER.REFERENCE_WORLD_SIZE",
    "SOLVER.WARMUP_FACTOR",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.WEIGHT_DECAY_BIAS",
    "SOLVER.WEIGHT_DECAY_EMBED",
    "SOLVER.WEIGHT_DECAY_NORM",
    "TEST.EVAL_PERIOD",
    "TEST.MOST_CLASSES",
)
ABOVE_0 = (
    "MODEL.ADAPTER.HYPERBOLIC_PLUS.IMAGE_CURVATURE",
    "MODEL.ADAPTER.HYPERBOLIC_PLUS.TEXT_CURVATURE",
    "MODEL.ADAPTER.HYRO.IMAGE_CURVATURE",
    "MODEL.ADAPTER.HYRO.TEXT_CURVATURE",
    "MODEL.ADAPTER.LORA.ALPHA",
    "MODEL.HYPERBOLIC.IMAGE_CURVATURE",
    "MODEL.HYPERBOLIC.TEXT_CURVATURE",
    "MODEL.HYPERSPHERICAL.HPA_TEMPERATURE",
    "SOLVER.BASE_LR",
    "SOLVER.GAMMA",
)
FROM_0_TO_1 = (
    "MODEL.ADAPTER.LORA.DROPOUT",
    "MODEL.HYPERSPHERICAL.HPA_MOMENTUM",
    "SOLVER.POLY_LR_CONSTANT_ENDING",
)
CHOICES = {
    "MODEL.SEM_SEG_HEAD.CLIP_DENSE": ("value", "csa"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("full_model", "value", "norm"),
    "SOLVER.LR_SCHEDULER_NAME": (
        "WarmupCosineLR",
        "WarmupMultiStepLR",
        "WarmupStepWithFixedGammaLR",
        "WarmupPolyLR",
    ),
    "SOLVER.OPTIMIZER": ("ADAMW", "SGD"),
    "SOLVER.WARMUP_METHOD": ("constant", "linear"),
}
MOST_SEED = 2**31 - 1
MODELS, HEADS = "CATSeg or EnhancedCATSeg", "CATSegHead"
NORM_GROUP = 16  # channels per group of the decoder's GroupNorm


def check_values(cfg: CfgNode) -> None:
    """Check all numbers, sizes and choices that can be checked from the config alone.

    Values that depend on the CLIP model or the machine are checked later, where these are known.

    Args:
        cfg: a full config, whose values have the types of the defaults.

    Raises:
        UserError: naming the key, its value, and the allowed values.
    """
    for keys, holds, wanted in (
        (FROM_1, lambda value: value >= 1, "1 or more"),
        (FROM_0, lambda value: value >= 0, "0 or more"),
        (ABOVE_0, lambda value: value > 0, "a number above 0"),
        (FROM_0_TO_1, lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    ):
        for key in keys:
            value = value_of(cfg, key)
            if value is None and key == "SOLVER.WEIGHT_DECAY_BIAS":  # None means WEIGHT_DECAY
                continue
            _check(cfg, key, _is_number(value) and holds(value), wanted)
    for key in CHOICES:
        check_choice(cfg, key)
    _check_input(cfg)
    _check_solver(cfg)
    _check_model(cfg)
    _check(cfg, "SEED", cfg.SEED <= MOST_SEED, f"at most {MOST_SEED} (negative: random seed)")
    _check(cfg, "OUTPUT_DIR", cfg.OUTPUT_DIR.strip(), "the folder to write to")
    _check(
        *(cfg, "TEST.EXPECTED_RESULTS"),
        all(_is_expectation(one) for one in cfg.TEST.EXPECTED_RESULTS),
        "a list of [task, metric, value, tolerance]",
    )


def check_choice(cfg: CfgNode, key: str) -> None:
    """Check the value of one key in CHOICES.

    Raises:
        UserError: naming the key, its value, and the allowed values.
    """
    value = value_of(cfg, key)
    if value not in CHOICES[key]:
        raise UserError(f"{key} is {value!r}; set it to one of {', '.join(CHOICES[key])}")


def value_of(cfg: CfgNode, key: str) -> Any:
    """Return the value of a dotted key."""
    node: Any = cfg
    for name in key.split("."):
        node = node[name]
    return node


def _check(cfg: CfgNode, key: str, holds: Any, wanted: str) -> None:
    if not holds:
        raise UserError(f"{key} is {value_of(cfg, key)!r}; set it to {wanted}")


def _check_input(cfg: CfgNode) -> None:
    sizes, crop = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.CROP
    _check(
        *(cfg, "INPUT.MIN_SIZE_TRAIN", sizes and min(sizes) >= 0),
        "integers of at least 0 (0 means no resizing), such as (384,)",
    )
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(sizes) == 2:
        _check(cfg, "INPUT.MIN_SIZE_TRAIN", sizes[0] <= sizes[1], "the smaller size first")
    _check(
        *(cfg, "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0 < crop.SINGLE_CATEGORY_MAX_AREA <= 1),
        "a fraction above 0, up to 1",
    )
    if not crop.ENABLED:
        return
    two, kind = len(crop.SIZE) == 2, crop.TYPE
    if kind.startswith("relative"):
        holds, wanted = all(0 < side <= 1 for side in crop.SIZE), "two fractions above 0, up to 1"
    else:
        holds, wanted = _are_positive(crop.SIZE, 2), "two positive integers (pixels)"
    if kind == "absolute_range" and holds and two:
        holds, wanted = crop.SIZE[0] <= crop.SIZE[1], "the smaller size first"
    _check(cfg, "INPUT.CROP.SIZE", two and holds, f"{wanted} (INPUT.CROP.TYPE is {kind!r})")


def _check_solver(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    _check(
        *(cfg, "SOLVER.BASE_LR_END", 0 <= solver.BASE_LR_END <= solver.BASE_LR),
        f"a number from 0 to SOLVER.BASE_LR, {solver.BASE_LR}",
    )
    _check(cfg, "SOLVER.CLIP_GRADIENTS.NORM_TYPE", solver.CLIP_GRADIENTS.NORM_TYPE > 0, "above 0")
    steps = list(solver.STEPS)
    _check(
        *(cfg, "SOLVER.STEPS", steps == sorted(set(steps)) and all(step > 0 for step in steps)),
        "iterations above 0, in increasing order",
    )


def _check_model(cfg: CfgNode) -> None:
    for key, least in (("CLIP_PIXEL_MEAN", -math.inf), ("CLIP_PIXEL_STD", 0)):
        values = cfg.MODEL[key]
        holds = len(values) == 3 and all(_is_number(v) and v > least for v in values)
        _check(cfg, f"MODEL.{key}", holds, "three numbers" + (" above 0" if least == 0 else ""))
    templates = cfg.MODEL.PROMPT_TEMPLATES
    _check(
        *(cfg, "MODEL.PROMPT_TEMPLATES", all(map(is_template, templates))),
        'strings with exactly one {} each, such as ["a photo of a {}"]',
    )
    bias = cfg.MODEL.SEM_SEG_HEAD.OUTPUT_BIAS_INIT
    _check(
        *(cfg, "MODEL.SEM_SEG_HEAD.OUTPUT_BIAS_INIT", bias is None or _is_number(bias)),
        "a number, or None",
    )


def is_template(value: object) -> bool:
    """Return whether a value is a text with one "{}", the place of the class name."""
    return isinstance(value, str) and value.count("{}") == value.count("{") == value.count("}") == 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _is_expectation(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 4
        and all(isinstance(name, str) for name in value[:2])
        and all(_is_number(number) for number in value[2:])
    )


def check_registered(model: CfgNode) -> None:
    """Check that the architecture and head named in MODEL are registered.

    Raises:
        UserError: naming the key, its value, and the available names.
    """
    for key, name, registry, known in (
        ("META_ARCHITECTURE", model.META_ARCHITECTURE, META_ARCH_REGISTRY, MODELS),
        ("SEM_SEG_HEAD.NAME", model.SEM_SEG_HEAD.NAME, SEM_SEG_HEADS_REGISTRY, HEADS),
    ):
        if name not in registry:
            raise UserError(f"MODEL.{key} is {name!r}; set it to {known}")


def check_head(head: CfgNode) -> None:
    """Check the values of MODEL.SEM_SEG_HEAD.

    Raises:
        UserError: naming the key, its value, and the allowed values.
    """
    node = "MODEL.SEM_SEG_HEAD"
    grid, pooling = head.FEATURE_RESOLUTION, head.POOLING_SIZES
    _require(_are_positive(grid, 2), node, head, "FEATURE_RESOLUTION", "two positive integers")
    _require(
        _are_positive(pooling, 2) and all(p <= g for p, g in zip(pooling, grid, strict=True)),
        *(node, head, "POOLING_SIZES"),
        f"two sizes from 1 to FEATURE_RESOLUTION {list(grid)}",
    )
    for key in ("HIDDEN_DIMS", "NUM_LAYERS", "NUM_HEADS", "WINDOW_SIZES", "PAD_LEN"):
        _require(_are_positive([head[key]], 1), node, head, key, "a positive integer")
    window = min(head.WINDOW_SIZES, *grid)
    _require(
        not any(side % window for side in grid),
        *(node, head, "WINDOW_SIZES"),
        f"a divisor of both sides of FEATURE_RESOLUTION {list(grid)}",
    )
    _require(
        head.HIDDEN_DIMS % head.NUM_HEADS == 0,
        *(node, head, "HIDDEN_DIMS"),
        f"a multiple of NUM_HEADS {head.NUM_HEADS}",
    )
    for key in ("DECODER_DIMS", "DECODER_GUIDANCE_DIMS", "DECODER_GUIDANCE_PROJ_DIMS"):
        _require(_are_positive(head[key], 2), node, head, key, "two positive integers")
    _require(
        not any(dim % NORM_GROUP for dim in head.DECODER_DIMS),
        *(node, head, "DECODER_DIMS"),
        f"multiples of {NORM_GROUP}, the channels per GroupNorm group",
    )
    incoming = (head.HIDDEN_DIMS, head.DECODER_DIMS[0])
    _require(
        all(p < i for p, i in zip(head.DECODER_GUIDANCE_PROJ_DIMS, incoming, strict=True)),
        *(node, head, "DECODER_GUIDANCE_PROJ_DIMS"),
        f"fewer channels than the inputs of the decoder stages, {list(incoming)}",
    )


def _are_positive(values: Any, count: int) -> bool:
    return len(values) == count and all(isinstance(v, int) and v >= 1 for v in values)


def _require(holds: bool, node: str, values: CfgNode, key: str, wanted: str) -> None:
    if not holds:
        raise UserError(f"{node}.{key} is {values[key]}; set it to {wanted}")
