"""Keys of the published configs that this project accepts but does not use."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from cat_seg.errors import UserError, user_errors
from cat_seg.modeling.clip.architecture import Architecture

_HEAD = "MODEL.SEM_SEG_HEAD"

# Keys without effect here. In the published code, they affect at most how batches are assembled.
UNREAD = (
    "DATALOADER.ASPECT_RATIO_GROUPING",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS",
    "DATALOADER.REPEAT_*",
    "DATASETS.PRECOMPUTED_PROPOSAL_*",
    "DATASETS.PROPOSAL_FILES_*",
    "DATASETS.VAL_ALL",
    "GLOBAL.*",
    "INPUT.MASK_FORMAT",
    "MODEL.ANCHOR_GENERATOR.*",
    "MODEL.BACKBONE.*",
    "MODEL.FPN.*",
    "MODEL.KEYPOINT_ON",
    "MODEL.LOAD_PROPOSALS",
    "MODEL.MASK_ON",
    "MODEL.PANOPTIC_FPN.*",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.PROPOSAL_GENERATOR.*",
    "MODEL.RESNETS.*",
    "MODEL.RETINANET.*",
    "MODEL.ROI_*",
    "MODEL.RPN.*",
    "MODEL.SWIN.*",
    f"{_HEAD}.ASPP_*",
    f"{_HEAD}.COMMON_STRIDE",
    f"{_HEAD}.CONVS_DIM",
    f"{_HEAD}.IN_FEATURES",
    f"{_HEAD}.LOSS_TYPE",
    f"{_HEAD}.LOSS_WEIGHT",
    f"{_HEAD}.NORM",
    f"{_HEAD}.NUM_CLASSES",
    f"{_HEAD}.PROJECT_*",
    f"{_HEAD}.TEST_CLASS_INDEXES",
    f"{_HEAD}.TRAIN_CLASS_INDEXES",
    "SOLVER.ADAN_*",
    "SOLVER.BACKBONE_MULTIPLIER",
    "SOLVER.NESTEROV",
    "TEST.DETECTIONS_PER_IMAGE",
    "TEST.KEYPOINT_OKS_SIGMAS",
    "TEST.PRECISE_BN.*",
    "VIS_PERIOD",
)
# Keys with a single allowed value. Others select a model or training that this project lacks.
FIXED = {
    "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    "MODEL.PROMPT_ENSEMBLE": False,
    f"{_HEAD}.ATTENTION_TYPE": "linear",
    f"{_HEAD}.PROMPT_DEPTH": 0,
    f"{_HEAD}.PROMPT_LENGTH": 0,
    f"{_HEAD}.USE_DEPTHWISE_SEPARABLE_CONV": False,
}
# Keys that must equal CLIP's feature channels.
EMBED_DIM = (f"{_HEAD}.TEXT_GUIDANCE_DIM", f"{_HEAD}.APPEARANCE_GUIDANCE_DIM")


def is_published(key: str) -> bool:
    """Return whether `key` is a published key that this project does not use."""
    return key in FIXED or key in EMBED_DIM or _pattern(key) is not None


def check_published(values: Mapping[str, Any], clip: str) -> list[str]:
    """Check the published keys that a config sets.

    Args:
        values: by dotted key; keys of this project are skipped.
        clip: MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED.

    Returns:
        The keys without effect, with whole sections as one entry.

    Raises:
        UserError: naming the key with an unsupported value, and the supported value.
    """
    found: dict[str, None] = {}
    for key, value in values.items():
        if key in FIXED and value != FIXED[key]:
            raise UserError(f"{key} is {value!r}; this project supports only {FIXED[key]!r}")
        if key in EMBED_DIM:
            with user_errors(name="MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED"):
                channels = Architecture.from_name(clip).embed_dim
            if value != channels:
                raise UserError(
                    f"{key} is {value!r}; set it to {channels}, the channels of CLIP {clip}"
                )
        if is_published(key):
            found[_pattern(key) or key] = None
    return list(found)


def _pattern(key: str) -> str | None:
    return next((pattern for pattern in UNREAD if fnmatchcase(key, pattern)), None)
