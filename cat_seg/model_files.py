"""Reading model files safely: nothing in a downloaded file is ever run or unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.utils.file_io import PathManager
from safetensors.torch import load_file
from torch import Tensor

from .errors import UserError
from .paths import resolve


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a model file without running any code from it.

    Args:
        path: a PyTorch file (a state dict, or one under "model" or "state_dict"), a safetensors
            file, or a TorchScript archive such as OpenAI's.

    Raises:
        UserError: if the file is none of these or is damaged.
    """
    state = read_file(path)
    for key in ("model", "state_dict"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
    tensors = {
        name.removeprefix("module."): value
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise UserError(f"{path}: no model weights in this file")
    return tensors


def read_file(path: Path) -> dict:
    """Read a PyTorch, safetensors or TorchScript file as it is; errors as in read_tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except OSError as error:
        raise UserError(f"{path}: cannot read this file: {error.strerror or error}") from error
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path}: not a checkpoint that can be loaded safely, or damaged ({reason[:120]})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


def local_file(weights: str) -> Path:
    """The local path of MODEL.WEIGHTS, a file or a URL that detectron2's path manager fetches.

    Raises:
        UserError: if there is no such file, or it cannot be fetched.
    """
    if "://" in weights:
        try:
            return Path(PathManager.get_local_path(weights))
        except Exception as error:  # each kind of URL has its own
            raise UserError(f"MODEL.WEIGHTS: cannot fetch {weights} ({error})") from error
    path = resolve(weights)
    if not path.is_file():
        raise UserError(f"MODEL.WEIGHTS: no file {weights}")
    return path


def _is_zip(path: Path) -> bool:
    return zipfile.is_zipfile(path)


def _is_torchscript(path: Path) -> bool:
    if not _is_zip(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
