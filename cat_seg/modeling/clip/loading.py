"""Building CLIP and giving it its start weights."""

from __future__ import annotations

import logging
from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn

from ...checkpoint import clip_from_open_clip
from ...errors import UserError
from ...model_files import read_tensors
from ...paths import resolve
from .adapters import FineTuning, HyperbolicSettings
from .architecture import Architecture
from .clip import CLIP
from .image_tower import ImageTower
from .prompts import Prompts
from .text_tower import TextTower

KEY = "MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS"
HUB_FILE = "open_clip_model.safetensors"

logger = logging.getLogger(__name__)


def build_clip(
    name: str,
    weights: str | None,
    fine_tuning: str,
    prompt_ensemble: str,
    grid: tuple[int, int],
    hyperbolic: HyperbolicSettings | None = None,
) -> CLIP:
    """Build CLIP for a segmentation model.

    Args:
        name: see Architecture.from_name.
        weights: "openai", "random", a local file, or None where a checkpoint with all of CLIP is
            about to be loaded (the parameters are then zero until it is).
        fine_tuning: a key of FINE_TUNINGS.
        prompt_ensemble: a key of TEMPLATES.
        grid: (H, W), the patches of an input image.
        hyperbolic: settings of hyperbolic fine-tuning, None for the defaults.

    Raises:
        UserError: for an unknown name, and for weights that are missing or do not fit.
    """
    architecture = Architecture.from_name(name)
    tuning = FineTuning.from_name(fine_tuning)
    prompts = Prompts(prompt_ensemble, architecture.context_length)
    with torch.device("meta"):  # the towers' own start values are never used
        text, image = TextTower(architecture), ImageTower(architecture, grid)
    clip = CLIP(
        _zeros(text), _zeros(image), tuning.build_adapter(architecture, hyperbolic), prompts
    )
    tuning.mark_trainable(clip.text, clip.image)
    if weights is not None:
        tensors = _start_weights(architecture, weights)
        _load(clip, tensors, f"{weights} does not fit {architecture.open_clip_name}")
    return clip


def _zeros(tower: nn.Module) -> nn.Module:
    tower = tower.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.zero_()
    return tower


def _start_weights(architecture: Architecture, weights: str) -> dict[str, Tensor]:
    if weights == "random":
        return open_clip.CLIP(**architecture.open_clip_config).state_dict()
    path = _download(architecture) if weights == "openai" else resolve(weights)
    if not path.is_file():
        raise UserError(f"{KEY}: no file {weights}; give 'openai', 'random' or a file that exists")
    return read_tensors(path)


def _download(architecture: Architecture) -> Path:
    """Fetch OpenAI's weights through open_clip's cache."""
    name = architecture.open_clip_name
    if not architecture.quick_gelu:
        raise UserError(
            f"{KEY}: OpenAI's weights are for models with QuickGELU, which {name} has not; set"
            f" MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED to '{name}-quickgelu'"
        )
    logger.info("Fetching OpenAI's CLIP weights of %s, unless they are cached", name)
    config = open_clip.get_pretrained_cfg(name, "openai")
    if not config:
        raise UserError(
            f"{KEY}: OpenAI published no weights for {name}; give a local file or 'random'"
        )
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it warns of each of its many attempts
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # whatever a hub client raises without a network
        raise UserError(
            f"{KEY}: cannot download OpenAI's weights of {name} ({type(error).__name__}); where"
            f" there is a network, fetch {HUB_FILE} of https://huggingface.co/{config['hf_hub'].rstrip('/')},"
            f" put it anywhere here, and set {KEY} to its path"
        ) from error
    finally:
        hub.setLevel(level)


def _load(clip: CLIP, tensors: dict[str, Tensor], complaint: str) -> None:
    loaded = clip_from_open_clip(tensors)
    own = {
        f"{part}.{name}" for part in ("text", "image") for name in getattr(clip, part).state_dict()
    }
    if foreign := sorted(loaded.keys() - own):
        raise UserError(f"{KEY}: {complaint}: its {foreign[0]} has no place there")
    for part in ("text", "image"):
        tower = getattr(clip, part)
        for name, parameter in tower.state_dict().items():
            found = loaded.get(f"{part}.{name}")
            if found is None:
                raise UserError(f"{KEY}: {complaint}: it has no {part}.{name}")
            if found.shape != parameter.shape:
                raise UserError(
                    f"{KEY}: {complaint}: {part}.{name} is {tuple(found.shape)},"
                    f" expected {tuple(parameter.shape)}"
                )
            parameter.copy_(found)
