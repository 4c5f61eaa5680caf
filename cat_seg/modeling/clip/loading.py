"""Build a CLIP of any kind and load its initial weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from cat_seg.checkpoint.clip_formats import convert_clip, is_clip
from cat_seg.checkpoint.fitting import check_finite
from cat_seg.checkpoint.formats import format_of
from cat_seg.errors import UserError, user_errors
from cat_seg.modeling.clip.adapters import FineTuning
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.clip import CLIP
from cat_seg.modeling.clip.eva import EVAImageTower
from cat_seg.modeling.clip.hub_tokenizer import HubTokenizer, hub_tokenizer
from cat_seg.modeling.clip.image_tower import DenseImageTower, ImageTower
from cat_seg.modeling.clip.pixels import check_pixels
from cat_seg.modeling.clip.prompts import Prompts
from cat_seg.modeling.clip.siglip import SigLIPImageTower, SigLIPTextTower
from cat_seg.modeling.clip.start_weights import KEY, start_weights
from cat_seg.modeling.clip.text_tower import TextTower
from cat_seg.modeling.encoder import ENCODER_REGISTRY

DENSE = ("value", "csa")
_WANTED = "use a CLIP of a supported kind from open_clip, OpenAI or transformers"

T = TypeVar("T", bound=nn.Module)


@ENCODER_REGISTRY.register()
def clip(cfg: CfgNode) -> CLIP:
    """Build a CLIP of any kind from a whole config; see `build_clip`.

    Raises:
        UserError: as in `build_clip`, naming the config key, or the config has the pixel statistics
            of another model.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    with user_errors(
        name="MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED",
        fine_tuning="MODEL.SEM_SEG_HEAD.CLIP_FINETUNE",
        ensemble="MODEL.PROMPT_ENSEMBLE_TYPE",
        dense="MODEL.SEM_SEG_HEAD.CLIP_DENSE",
    ):
        check_pixels(Architecture.from_name(head.CLIP_PRETRAINED), head.CLIP_WEIGHTS, cfg.MODEL)
        return build_clip(
            head.CLIP_PRETRAINED,
            head.CLIP_WEIGHTS,
            head.CLIP_FINETUNE,
            cfg.MODEL.PROMPT_ENSEMBLE_TYPE,
            tuple(head.FEATURE_RESOLUTION),
            cfg.MODEL,
            head.CLIP_DENSE,
            head.CLIP_TOKENIZER,
            cfg.MODEL.ACTIVATION_CHECKPOINTING,
        )


def build_clip(
    name: str,
    weights: str | None,
    fine_tuning: str,
    ensemble: str,
    grid: tuple[int, int],
    model: CfgNode | None = None,
    dense: str = "value",
    tokenizer: str = "",
    recompute: bool = False,
) -> CLIP:
    """Build a CLIP of any kind for a segmentation model.

    Args:
        name: see `Architecture.from_name`.
        weights: see `start_weights`, or None if a checkpoint with all of CLIP will be loaded later
            (until then the towers' parameters are zero).
        fine_tuning: a key of FINE_TUNINGS.
        ensemble: a key of TEMPLATES.
        grid: (H, W), number of patches of an input image.
        model: MODEL section of the config, read by adapters; None for the defaults.
        dense: how the dense features are computed, "value" or "csa"; see `EVAImageTower`. Other
            kinds than EVA02-CLIP have "value" alone.
        tokenizer: folder of SigLIP's tokenizer; "" downloads it.
        recompute: activation checkpointing in SigLIP's text tower.

    Raises:
        ValueError: a name is unknown, or the model does not have this kind of dense features.
        UserError: the weights are missing or do not fit, or as in `FineTuning.build_adapter`.
    """
    architecture = Architecture.from_name(name)
    tuning = FineTuning.from_name(fine_tuning)
    own = () if model is None else model.PROMPT_TEMPLATES
    with torch.device("meta"):  # skips the default initialization, which is never used
        text = text_tower(architecture, recompute)
        image = image_tower(architecture, grid, dense)
    own_tokenizer = _tokenizer(architecture, tokenizer)
    prompts = Prompts(ensemble, architecture.context_length, own, own_tokenizer, text.arrange)
    clip = CLIP(_zeros(text), _zeros(image), tuning.build_adapter(architecture, model), prompts)
    tuning.mark_trainable(clip.text, clip.image)
    if weights is not None:
        tensors = start_weights(architecture, weights)
        _load(clip, tensors, weights, architecture)
    return clip


def text_tower(architecture: Architecture, recompute: bool) -> TextTower | SigLIPTextTower:
    """Return the text tower of an architecture, with parameters to be loaded."""
    if architecture.causal:
        return TextTower(architecture)
    return SigLIPTextTower(architecture, recompute)


def image_tower(architecture: Architecture, grid: tuple[int, int], dense: str) -> DenseImageTower:
    """Return the image tower of an architecture, with parameters to be loaded.

    Raises:
        ValueError: it does not have this kind of dense features.
    """
    if dense not in DENSE:
        raise ValueError(f"dense must be one of {', '.join(DENSE)}; it is {dense!r}")
    if architecture.kind == "eva02":
        return EVAImageTower(architecture, grid, dense)
    if dense != "value":
        raise ValueError(
            f"dense must be 'value' for {architecture.open_clip_name}, since only EVA02-CLIP has"
            f" {dense!r}"
        )
    return {"clip": ImageTower, "siglip": SigLIPImageTower}[architecture.kind](architecture, grid)


def _tokenizer(architecture: Architecture, folder: str) -> HubTokenizer | None:
    """Return the tokenizer of an architecture, None for CLIP's own."""
    if not architecture.tokenizer:
        return None
    settings = architecture.open_clip_config["text_cfg"].get("tokenizer_kwargs", {})
    clean = settings.get("clean", "whitespace")  # open_clip's default
    return hub_tokenizer(folder or None, architecture.tokenizer, architecture.context_length, clean)


def _zeros(tower: T) -> T:
    tower = tower.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.zero_()
    return tower


def _load(clip: CLIP, tensors: dict[str, Tensor], weights: str, architecture: Architecture) -> None:
    """Copy the entries of a CLIP in any supported format into the towers."""
    if not is_clip(tensors):
        raise UserError(f"{KEY}: {weights} {_what_else(tensors)}")
    complaint = f"{KEY}: {weights} does not fit {architecture.open_clip_name}"
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
            raise UserError(f"{complaint}: it has no {_open_clip_name(name, architecture.kind)}")
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
    if "pos_embed" in names:
        return f"is an image tower of timm without a text tower ({example}); {_WANTED}"
    segmenters = ("backbone.", "decode_head.", "sem_seg_head.", "pixel_decoder.")
    if any(name.startswith(segmenters) for name in names):
        return f"is another segmentation model's checkpoint, not a CLIP ({example}); {_WANTED}"
    return f"is not a CLIP ({example}); {_WANTED}"


def _open_clip_name(name: str, kind: str) -> str:
    tower, rest = name.split(".", 1)
    if kind != "clip":  # whose entries have several names
        return f"{rest} of the {tower} tower"
    return rest if tower == "text" else f"visual.{rest}"
