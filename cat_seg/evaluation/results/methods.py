"""Names of a run's method and backbone in tables, derived from its config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# CLIP_FINETUNE -> system, in table order. Any other value is a variant of CAT-Seg.
SYSTEMS = {
    "attention": "CAT-Seg",
    "oft_both": "H-CLIP",
    "hyperbolic": "HyperCLIP",
    "hyperbolic_plus": "HyperCLIP++",
    "hyro": "HyRo",
}
INNOVATIONS = ("HPA", "AFR")
BASELINE = "H-CLIP"


class Method(NamedTuple):
    """A method; instances sort in table order.

    rank: position of its CLIP fine-tuning.
    added: number of innovations.
    order: sort key of the innovations and other changes.
    name: the method's name in the table.
    """

    rank: int
    added: int
    order: tuple[bool, ...]
    name: str


def method_of(config: Mapping[str, Any]) -> Method:
    """Name the method of a full config, given as nested dicts.

    Raises:
        KeyError, TypeError: it is not a config of this project.
    """
    model = config["MODEL"]
    fine_tuning = model["SEM_SEG_HEAD"]["CLIP_FINETUNE"]
    settings = model["HYPERSPHERICAL"]
    # The switches are on by default, even for models that have neither HPA nor AFR.
    enhanced = model["META_ARCHITECTURE"] == "EnhancedCATSeg"
    used = tuple(enhanced and settings[f"USE_{name}"] for name in INNOVATIONS)
    added = [name for name, use in zip(INNOVATIONS, used, strict=True) if use]
    parts = [SYSTEMS.get(fine_tuning, f"CAT-Seg ({fine_tuning})"), *added]
    if parts == ["H-CLIP", *INNOVATIONS]:
        parts = ["HPS-Seg"]
    geodesic = settings["GEODESIC_CORRELATION"]
    if geodesic:
        parts.append("geodesic")
    known = list(SYSTEMS)
    rank = known.index(fine_tuning) if fine_tuning in known else len(known)
    # Sorts HPA before AFR before both, as in INNOVATIONS.
    return Method(rank, len(added), (*(not use for use in used), geodesic), " + ".join(parts))


def backbone_of(config: Mapping[str, Any]) -> str:
    """Name the CLIP of a full config: its architecture, or the stem of its model config file.

    Raises:
        KeyError, TypeError: it is not a config of this project.
    """
    name = config["MODEL"]["SEM_SEG_HEAD"]["CLIP_PRETRAINED"]
    return Path(name).stem if name.endswith(".json") else name
