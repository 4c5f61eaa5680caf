"""Check of the pixel statistics that a CLIP was trained with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import open_clip
from detectron2.config import CfgNode

from cat_seg.errors import UserError
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.start_weights import pretrained_settings


def check_pixels(architecture: Architecture, weights: str | None, model: CfgNode) -> None:
    """Check MODEL.CLIP_PIXEL_MEAN and CLIP_PIXEL_STD where the right values are known.

    Known are those of open_clip's downloads. A file for EVA02-CLIP or SigLIP should have those of
    the downloads for the same model.

    Args:
        architecture: the CLIP.
        weights: MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS; None if they come with a checkpoint.
        model: MODEL section of a config.

    Raises:
        UserError: naming the key and the right values.
    """
    known = pretrained_settings(architecture, weights)
    if not known and architecture.kind != "clip":
        tags = open_clip.list_pretrained_tags_by_model(architecture.open_clip_name)
        known = pretrained_settings(architecture, tags[0]) if tags else {}
    for key, name in (("CLIP_PIXEL_MEAN", "mean"), ("CLIP_PIXEL_STD", "std")):
        if name in known and not _are_close(model[key], right := scaled(known[name])):
            raise UserError(
                f"MODEL.{key} is {list(model[key])}, but {architecture.open_clip_name} with the"
                f" weights {weights!r} was trained with {right}; set it to that"
            )


def scaled(values: Sequence[float]) -> list[float]:
    """Return open_clip's statistics, for pixels in 0..1, on the scale 0..255 of the config."""
    return [round(255 * value, 7) for value in values]


def _are_close(found: Sequence[float], right: Sequence[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=0.01) for a, b in zip(found, right, strict=True))
