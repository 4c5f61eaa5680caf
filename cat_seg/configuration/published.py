"""Keys of the published configs that this project accepts although it does nothing with them."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from cat_seg.errors import UserError
from cat_seg.modeling.clip.architecture import Architecture

_HEAD = "MODEL.SEM_SEG_HEAD"

# Keys that change nothing here, and nothing in the published code but how batches are put together.
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
# Keys with one value here: another asks for a model or a training that this project does not have.
FIXED = {
    "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    "MODEL.PROMPT_ENSEMBLE": False,
    f"{_HEAD}.ATTENTION_TYPE": "linear",
    f"{_HEAD}.PROMPT_DEPTH": 0,
    f"{_HEAD}.PROMPT_LENGTH": 0,
    f"{_HEAD}.USE_DEPTHWISE_SEPARABLE_CONV": False,
}
# Keys that repeat the channels of CLIP's features.
EMBED_DIM = (f"{_HEAD}.TEXT_GUIDANCE_DIM", f"{_HEAD}.APPEARANCE_GUIDANCE_DIM")


def is_published(key: str) -> bool:
    """Whether `key` is one of the published keys that do nothing here."""
    return key in FIXED or key in EMBED_DIM or _pattern(key) is not None


def check_published(values: Mapping[str, Any], clip: str) -> list[str]:
    """Check the published keys that a config sets.

    Args:
        values: by dotted key; keys of this project are passed over.
        clip: MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED.

    Returns:
        The keys without effect, whole sections as one.

    Raises:
        UserError: naming the key whose value is not supported, and the value that is.
    """
    found = {}
    for key, value in values.items():
        if key in FIXED and value != FIXED[key]:
            raise UserError(f"{key} is {value!r}; this project only has {FIXED[key]!r}")
        if key in EMBED_DIM:
            channels = Architecture.from_name(clip).embed_dim
            if value != channels:
                raise UserError(f"{key} is {value!r}; CLIP {clip} has {channels} channels")
        if is_published(key):
            found[_pattern(key) or key] = None
    return list(found)


def _pattern(key: str) -> str | None:
    return next((pattern for pattern in UNREAD if fnmatchcase(key, pattern)), None)
