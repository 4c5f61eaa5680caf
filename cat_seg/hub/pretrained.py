"""Saving models in folders that `cat_seg.from_pretrained` loads, and sharing them on the Hub."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from detectron2.config import CfgNode
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from cat_seg.checkpoint.without_clip import DIGEST, split_clip
from cat_seg.data.vocabularies import load_vocabulary
from cat_seg.errors import UserError
from cat_seg.hub.card import model_card, read_results
from cat_seg.hub.download import Repo
from cat_seg.hub.failures import explained
from cat_seg.hub.locating import CONFIG, VOCABULARY, WEIGHTS
from cat_seg.hub.portable import CLIP_CONFIG, portable_config
from cat_seg.modeling.clip.adapters import FineTuning
from cat_seg.utils.files import atomic_write

CARD = "README.md"
FILES = (WEIGHTS, CONFIG, VOCABULARY, CLIP_CONFIG, CARD)


def save_pretrained(
    model: nn.Module,
    cfg: CfgNode,
    folder: str | os.PathLike[str],
    *,
    clip: bool = True,
    name: str | None = None,
    license: str | None = None,
    results: Iterable[Path] = (),
) -> Path:
    """Save a model in a folder that `cat_seg.from_pretrained` loads.

    The folder gets model.safetensors, config.yaml, vocabulary.json (the training classes),
    README.md (the model card), and clip_config.json if CLIP_PRETRAINED is a file. Files of these
    names are replaced once all are written; others are left alone.

    Args:
        model: the model of `cfg`.
        cfg: its full config.
        folder: created if missing.
        clip: include CLIP's own weights. False saves what was trained alone, tens of MB; loading
            then needs the CLIP that CLIP_PRETRAINED and CLIP_WEIGHTS name.
        name: the model's name in the card; None for the folder's.
        license: identifier of the license for the card, such as "mit".
        results: results.json files whose metrics go into the card.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be written; or `clip` is False, but CLIP's own weights were
            trained, or nobody else can get the CLIP that was fine-tuned.
    """
    return save_state(
        model.state_dict(), cfg, folder, clip=clip, name=name, license=license, results=results
    )


def save_state(
    state: Mapping[str, Tensor],
    cfg: CfgNode,
    folder: str | os.PathLike[str],
    *,
    clip: bool = True,
    name: str | None = None,
    license: str | None = None,
    results: Iterable[Path] = (),
) -> Path:
    """Do the same as `save_pretrained` with a state dict in this project's format."""
    folder = Path(folder)
    metadata = {"format": "pt"}
    if not clip:
        _check_clip_is_frozen(cfg)
        state, metadata[DIGEST] = split_clip(state)
    tensors, aliases = _each_once(state)
    portable, architecture = portable_config(cfg)
    names = load_vocabulary(cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON)
    card = model_card(
        cfg,
        name=name or folder.absolute().name,
        classes=len(names),
        with_clip=clip,
        results=read_results(results),
        license=license,
    )
    texts = {
        CONFIG: portable.dump().encode(),
        VOCABULARY: (json.dumps(names, ensure_ascii=False, indent=1) + "\n").encode(),
        CARD: card.encode(),
    }
    if architecture is not None:
        texts[CLIP_CONFIG] = architecture
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
            _write(Path(partial), texts, tensors, metadata | aliases)
            for file in FILES:
                written = Path(partial, file)
                if written.exists():
                    os.replace(written, folder / file)
                else:
                    (folder / file).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {folder}: {reason}; nothing in it was changed") from error
    return folder


def push_to_hub(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Upload a folder of `save_pretrained` to a model repository on the Hugging Face Hub.

    Args:
        folder: only the files that `save_pretrained` writes are uploaded.
        repo_id: "owner/name"; created if missing.
        private: whether a new repository is private.
        revision: branch to commit to; None for main.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        UserError: the folder is not of `save_pretrained`, nobody is logged in, or the upload
            fails.
    """
    from huggingface_hub import HfApi

    for file in (WEIGHTS, CONFIG, VOCABULARY, CARD):
        if not Path(folder, file).is_file():
            raise UserError(f"{folder} has no {file}; write it with save_pretrained or export-hub")
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=Path(folder),
            revision=revision,
            commit_message=message or "Upload a model of HPS-Seg",
            allow_patterns=list(FILES),
        )
    except Exception as error:  # the types depend on the version of huggingface_hub
        raise UserError(f"upload to {repo_id}: {explained(error, Repo(repo_id))}") from error
    return commit.commit_url


def _check_clip_is_frozen(cfg: CfgNode) -> None:
    head = cfg.MODEL.SEM_SEG_HEAD
    key = "MODEL.SEM_SEG_HEAD."
    without = "CLIP's own weights cannot be left out"
    if head.ENCODER != "clip":
        raise UserError(f"{without}: {key}ENCODER is {head.ENCODER!r}")
    tuning = FineTuning.from_name(head.CLIP_FINETUNE)
    if tuning.text or tuning.image:
        raise UserError(f"{without}: {key}CLIP_FINETUNE {head.CLIP_FINETUNE!r} trained them")
    if head.CLIP_WEIGHTS == "random":
        raise UserError(f"{without}: {key}CLIP_WEIGHTS is 'random', so they are nowhere else")


def _each_once(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, each once, and the further names of those that have several.

    The latter are in the form in which safetensors keeps them in a file's metadata.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple, str] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        tensor = tensor.detach()
        storage = tensor.untyped_storage().data_ptr()
        place = (storage, tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in first:
            aliases[name] = first[place]
            continue
        first[place] = name
        # safetensors refuses views of one storage.
        apart = tensor.clone() if storage in storages else tensor
        storages.add(storage)
        tensors[name] = apart.cpu().contiguous()
    return tensors, aliases


def _write(
    folder: Path,
    texts: Mapping[str, bytes],
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
) -> None:
    save_file(tensors, folder / WEIGHTS, metadata)
    with open(folder / WEIGHTS, "rb") as file:
        os.fsync(file.fileno())
    for name, content in texts.items():
        with atomic_write(folder / name) as file:
            file.write(content)
    shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # safetensors lets only the owner read it
