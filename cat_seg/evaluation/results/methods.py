"""What a run is called in tables: its method and its backbone, read off its config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# The systems by CLIP_FINETUNE, in the order of the table; the others are variants of CAT-Seg.
SYSTEMS = {"attention": "CAT-Seg", "oft_both": "H-CLIP", "hyperbolic": "HyperCLIP"}
INNOVATIONS = ("HPA", "AFR")
BASELINE = "H-CLIP"


class Method(NamedTuple):
    """A method; sorts into the order of the table.

    rank: of the fine-tuning of CLIP.
    added: number of innovations.
    order: of the innovations and other changes, for a fixed order.
    name: in the table.
    """

    rank: int
    added: int
    order: tuple[bool, ...]
    name: str


def method_of(config: Mapping[str, Any]) -> Method:
    """Name the method of a whole config, given as nested dicts.

    Raises:
        KeyError, TypeError: it is no config of this project.
    """
    model = config["MODEL"]
    fine_tuning = model["SEM_SEG_HEAD"]["CLIP_FINETUNE"]
    settings = model["HYPERSPHERICAL"]
    # The switches are on by default, also where the model has neither.
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
    # HPA before AFR before both, as the innovations are listed.
    return Method(rank, len(added), (*(not use for use in used), geodesic), " + ".join(parts))


def backbone_of(config: Mapping[str, Any]) -> str:
    """Name the CLIP of a whole config: an architecture, or the file of its description.

    Raises:
        KeyError, TypeError: it is no config of this project.
    """
    name = config["MODEL"]["SEM_SEG_HEAD"]["CLIP_PRETRAINED"]
    return Path(name).stem if name.endswith(".json") else name
