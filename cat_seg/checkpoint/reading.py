"""Safe reading of model files: no code from a downloaded file is ever run."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.utils.file_io import PathManager
from safetensors import safe_open
from torch import Tensor

from cat_seg.checkpoint.file_kinds import (
    is_safetensors,
    is_torchscript,
    is_zip,
    why_no_checkpoint,
    why_unreadable,
)
from cat_seg.checkpoint.state_dicts import Weights, find_weights
from cat_seg.checkpoint.stored_arrays import STAND_INS
from cat_seg.errors import UserError
from cat_seg.hub.locating import weights_file

KEY = "MODEL.WEIGHTS"


def read_tensors(path: Path, key: str = KEY) -> dict[str, Tensor]:
    """Read the tensors of a model file without running any code from it.

    Args:
        path: see `read_weights`.
        key: the config key that names the file, for messages.

    Raises:
        UserError: see `read_weights`.
    """
    return read_weights(path, key).tensors


def read_weights(path: Path, key: str = KEY, averaged: bool = False) -> Weights:
    """Read a model's weights without running any code from the file.

    Args:
        path: a PyTorch file (a state dict, or one nested under a name such as "model" or
            "state_dict"), a safetensors file, or a TorchScript archive such as OpenAI's.
        key: the config key that names the file, for messages.
        averaged: take the moving average (EMA) of the weights if the file has both.

    Raises:
        UserError: the file is none of these or is damaged; the message names key and file.
    """
    content = read_file(path, key)
    try:
        weights = find_weights(content, averaged)
    except UserError as error:
        raise UserError(f"{key}: {path} {error}") from error
    if weights is None:
        raise UserError(f"{key}: {path} contains no model weights; give a model's state_dict")
    return weights


def read_file(path: Path, key: str = KEY) -> dict:
    """Read the raw content of a PyTorch, safetensors or TorchScript file.

    Raises:
        UserError: as in `read_weights`.
    """
    try:
        if reason := why_no_checkpoint(path):
            raise UserError(f"{key}: {path} {reason}")
        if is_safetensors(path):
            return _read_safetensors(path)
        if is_torchscript(path):
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
        with torch.serialization.safe_globals(STAND_INS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{key}: cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch and safetensors raise many types for a damaged file
        raise UserError(f"{key}: {path} {why_unreadable(error)}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{key}: {path} contains a {type(content).__name__}, not a checkpoint; save the "
            "model's state_dict with torch.save"
        )
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a file whose metadata may give further names of its tensors.

    That is how safetensors saves tensors that are shared between several names.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        names = (file.metadata() or {}).items()
    shared = {alias: tensors[name] for alias, name in names if name in tensors}
    return shared | tensors


def local_file(weights: str) -> Path:
    """Return the local path of MODEL.WEIGHTS, downloading what is not on this machine.

    Args:
        weights: a file, a folder, the name of a model or a repository (see
            `cat_seg.hub.locate`), or a URL for detectron2's path manager.

    Raises:
        UserError: there is no such file or model, or it cannot be downloaded.
    """
    if "://" in weights:
        try:
            return Path(PathManager.get_local_path(weights))
        except Exception as error:  # each URL handler raises its own types
            raise UserError(f"{KEY}: cannot download {weights} ({error}); check the URL") from error
    try:
        return weights_file(weights)
    except UserError as error:
        raise UserError(f"{KEY}: {error}") from error
