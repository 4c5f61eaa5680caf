"""Build CLIP and load its initial weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import open_clip
import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from cat_seg.checkpoint.clip_formats import convert_clip, is_clip
from cat_seg.checkpoint.fitting import check_finite
from cat_seg.checkpoint.formats import format_of
from cat_seg.checkpoint.reading import read_tensors
from cat_seg.errors import UserError, user_errors
from cat_seg.modeling.clip.adapters import FineTuning
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.clip import CLIP
from cat_seg.modeling.clip.image_tower import ImageTower
from cat_seg.modeling.clip.prompts import Prompts
from cat_seg.modeling.clip.text_tower import TextTower
from cat_seg.modeling.encoder import ENCODER_REGISTRY
from cat_seg.utils.paths import resolve

KEY = "MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS"
HUB_FILE = "open_clip_model.safetensors"
_WANTED = "use a ViT CLIP from open_clip, OpenAI or transformers"

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=nn.Module)


@ENCODER_REGISTRY.register()
def clip(cfg: CfgNode) -> CLIP:
    """Build CLIP from a whole config; see `build_clip`.

    Raises:
        UserError: as in `build_clip`, naming the config key.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    with user_errors(
        name="MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED",
        fine_tuning="MODEL.SEM_SEG_HEAD.CLIP_FINETUNE",
        ensemble="MODEL.PROMPT_ENSEMBLE_TYPE",
    ):
        return build_clip(
            head.CLIP_PRETRAINED,
            head.CLIP_WEIGHTS,
            head.CLIP_FINETUNE,
            cfg.MODEL.PROMPT_ENSEMBLE_TYPE,
            tuple(head.FEATURE_RESOLUTION),
            cfg.MODEL,
        )


def build_clip(
    name: str,
    weights: str | None,
    fine_tuning: str,
    ensemble: str,
    grid: tuple[int, int],
    model: CfgNode | None = None,
) -> CLIP:
    """Build CLIP for a segmentation model.

    Args:
        name: see `Architecture.from_name`.
        weights: "openai", "random", a local file, or None if a checkpoint with all of CLIP will
            be loaded later (until then the towers' parameters are zero).
        fine_tuning: a key of FINE_TUNINGS.
        ensemble: a key of TEMPLATES.
        grid: (H, W), number of patches of an input image.
        model: MODEL section of the config, read by adapters; None for the defaults.

    Raises:
        ValueError: a name is unknown.
        UserError: the weights are missing or do not fit, or as in `FineTuning.build_adapter`.
    """
    architecture = Architecture.from_name(name)
    tuning = FineTuning.from_name(fine_tuning)
    own = () if model is None else model.PROMPT_TEMPLATES
    prompts = Prompts(ensemble, architecture.context_length, own)
    with torch.device("meta"):  # skips the default initialization, which is never used
        text, image = TextTower(architecture), ImageTower(architecture, grid)
    clip = CLIP(_zeros(text), _zeros(image), tuning.build_adapter(architecture, model), prompts)
    tuning.mark_trainable(clip.text, clip.image)
    if weights is not None:
        tensors = _start_weights(architecture, weights)
        _load(clip, tensors, weights, architecture.open_clip_name)
    return clip


def _zeros(tower: T) -> T:
    tower = tower.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.zero_()
    return tower


def _start_weights(architecture: Architecture, weights: str) -> dict[str, Tensor]:
    if weights == "random":
        return open_clip.CLIP(**architecture.open_clip_config).state_dict()
    path = _download(architecture) if weights == "openai" else resolve(weights)
    if not os.path.isfile(path):
        raise UserError(f"{KEY}: no file {weights}; give 'openai', 'random' or a file that exists")
    return read_tensors(path, KEY)


def _download(architecture: Architecture) -> Path:
    """Fetch OpenAI's weights through open_clip's cache."""
    name = architecture.open_clip_name
    if not architecture.quick_gelu:
        raise UserError(
            f"{KEY}: OpenAI's weights need QuickGELU, which {name} does not use; set"
            f" MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED to '{name}-quickgelu'"
        )
    logger.info("Loading OpenAI's CLIP weights for %s (downloaded if not cached)", name)
    config = open_clip.get_pretrained_cfg(name, "openai")
    if not config:
        raise UserError(
            f"{KEY}: OpenAI published no weights for {name}; give a local file or 'random'"
        )
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it logs a warning for each of many retries
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # the exception type depends on the hub client
        raise UserError(
            f"{KEY}: cannot download OpenAI's weights for {name} ({type(error).__name__});"
            f" download {HUB_FILE} from https://huggingface.co/{config['hf_hub'].rstrip('/')} on a"
            f" machine with network access, copy it here, and set {KEY} to its path"
        ) from error
    finally:
        hub.setLevel(level)


def _load(clip: CLIP, tensors: dict[str, Tensor], weights: str, model: str) -> None:
    """Copy the entries of a CLIP in any supported format into the towers."""
    if not is_clip(tensors):
        raise UserError(f"{KEY}: {weights} {_what_else(tensors)}")
    complaint = f"{KEY}: {weights} does not fit {model}"
    loaded = convert_clip(tensors)
    own = {
        f"{part}.{name}": value
        for part in ("text", "image")
        for name, value in getattr(clip, part).state_dict().items()
    }
    if foreign := sorted(loaded.tensors.keys() - own.keys()):
        raise UserError(f"{complaint}: unexpected entry {loaded.sources[foreign[0]]}")
    for name, parameter in own.items():
        found = loaded.tensors.get(name)
        if found is None:
            raise UserError(f"{complaint}: it has no {_open_clip_name(name)}")
        if found.shape != parameter.shape:
            raise UserError(
                f"{complaint}: {loaded.sources[name]} has shape {tuple(found.shape)},"
                f" expected {tuple(parameter.shape)}"
            )
    try:
        check_finite(loaded.tensors, loaded.sources)
    except UserError as error:
        raise UserError(f"{KEY}: {weights}: {error}") from error
    for name, parameter in own.items():
        parameter.copy_(loaded.tensors[name])


def _what_else(names: Iterable[str]) -> str:
    """Describe a file that is not a CLIP, judging by the names of its entries."""
    names = list(names)
    example = f"it contains {names[0]}"
    found = format_of(names)
    if found != "unknown":
        system = "segmentation" if found == "ours" else found
        return f"is a complete {system} model, not a CLIP; set MODEL.WEIGHTS to it instead"
    if any(name.startswith(("text_model.", "vision_model.")) for name in names):
        return f"is a transformers model, but not a CLIP with both towers ({example}); {_WANTED}"
    if any(name.startswith(("visual.attnpool.", "visual.trunk.")) for name in names):
        return f"is a CLIP whose image tower is not a plain ViT ({example}); {_WANTED}"
    segmenters = ("backbone.", "decode_head.", "sem_seg_head.", "pixel_decoder.")
    if any(name.startswith(segmenters) for name in names):
        return f"is another segmentation model's checkpoint, not a CLIP ({example}); {_WANTED}"
    return f"is not a CLIP ({example}); {_WANTED}"


def _open_clip_name(name: str) -> str:
    tower, rest = name.split(".", 1)
    return rest if tower == "text" else f"visual.{rest}"
