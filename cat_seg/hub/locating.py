"""Finding the files of a model that is given as a name, a repository, a folder or a file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from cat_seg.errors import UserError
from cat_seg.hub.download import Repo, fetch, fetch_if_there
from cat_seg.hub.registry import MODELS, ModelEntry, no_such_model
from cat_seg.utils.paths import resolve

CONFIG = "config.yaml"
WEIGHTS = "model.safetensors"
VOCABULARY = "vocabulary.json"
# Weights of a folder or repository, in order of preference; the second is that of a training.
WEIGHTS_NAMES = (WEIGHTS, "model_final.pth")
_TAG = "last_checkpoint"

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Suffixes that say that a name is meant as a file.
_SUFFIXES = (
    *(".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".pkl", ".pickle", ".tar", ".zip", ".gz"),
    *(".yaml", ".yml", ".json", ".txt"),
)
# Keys of MODEL.SEM_SEG_HEAD that may name a file beside the config.
_FILE_KEYS = ("TRAIN_CLASS_JSON", "TEST_CLASS_JSON", "CLIP_PRETRAINED")


class ModelFiles(NamedTuple):
    """The files of a model.

    config: config file.
    weights: checkpoint.
    vocabulary: class list that the model was trained on, None if only the config names it.
    name: what the model was given as, with the revision.
    """

    config: Path
    weights: Path
    vocabulary: Path | None
    name: str

    def overrides(self) -> list[str]:
        """Return the KEY VALUE pairs that `load_config` needs in addition to the config."""
        return ["MODEL.WEIGHTS", str(self.weights)]


def locate(
    source: str | os.PathLike[str],
    revision: str | None = None,
    config_file: str | os.PathLike[str] | None = None,
) -> ModelFiles:
    """Find the files of a model, downloading what is on the Hub.

    Args:
        source: a local file or folder, a registered name, or a Hub repository "owner/name"; the
            last two also with "@revision". What exists locally is taken first.
        revision: branch, tag or commit of a Hub repository.
        config_file: config to use instead of the model's own.

    Raises:
        UserError: there is no such model, it has no config or no weights, or it cannot be
            downloaded.
    """
    text = os.fspath(source)
    if not text:
        raise UserError("no model is named; give a name, a repository, a folder or a file")
    own = None if config_file is None else _existing(os.fspath(config_file))
    path = resolve(text)
    if os.path.exists(path):
        if revision is not None:
            raise UserError(f"{text} is a local path, which has no revision {revision!r}")
        return _local(path, own, text)
    name, given = _split(text, revision)
    entry = MODELS.get(name)
    if entry is not None:
        return _registered(entry, given, own)
    _refuse_paths(text)
    repo = Repo(name, revision=given or "main")
    config = own or fetch_if_there(repo, CONFIG)
    if config is None:
        raise UserError(f"{repo} on the Hub has no {CONFIG}; name the config of its model")
    # All other files come from the commit that the config came from.
    at = repo if own else repo._replace(revision=config.parent.name)
    weights = _weights_of(at)
    vocabulary = fetch_if_there(at, VOCABULARY)
    if not own:
        _fetch_named(at, config)
    return ModelFiles(config, weights, vocabulary, str(repo))


def weights_file(source: str) -> Path:
    """Find the weights of a model, as MODEL.WEIGHTS takes them; see `locate`.

    Raises:
        UserError: see `locate`; a config is not needed.
    """
    path = resolve(source)
    if os.path.isfile(path):
        return path
    if os.path.isdir(path):
        return _weights_in(path)
    name, revision = _split(source, None)
    entry = MODELS.get(name)
    if entry is not None:
        return weights_file(entry.path) if entry.path else _weights_of_entry(entry, revision)
    _refuse_paths(source)
    return _weights_of(Repo(name, revision=revision or "main"))


def check_name(source: str) -> None:
    """Refuse what cannot be the name of a model or repository; the Hub is not asked.

    Raises:
        UserError: it is no name, or more likely the path of a missing file.
    """
    if _split(source, None)[0] not in MODELS:
        _refuse_paths(source)


def _split(text: str, revision: str | None) -> tuple[str, str | None]:
    """Split "name@revision"."""
    name, at, written = text.partition("@")
    if at and not written:
        raise UserError(f"{text} names no revision after @")
    if at and revision is not None and revision != written:
        raise UserError(f"{text} names another revision than {revision!r}; give one")
    return name, written if at else revision


def _refuse_paths(text: str) -> None:
    """Refuse what is no repository name, and what is more likely the path of a missing file."""
    name = text.partition("@")[0]
    looks_like_path = (
        Path(name).suffix.lower() in _SUFFIXES
        or name.count("/") > 1
        or name.startswith(("/", ".", "~"))
        or "\\" in name
        or os.path.isdir(name.partition("/")[0])
    )
    if "/" not in name and not looks_like_path:
        raise no_such_model(name)
    if looks_like_path or not _REPO.fullmatch(name):
        raise UserError(f"no file {text}")


def _existing(config: str) -> Path:
    path = resolve(config)
    if not os.path.isfile(path):
        raise UserError(f"no config file {config}")
    return path


def _local(path: Path, config: Path | None, name: str) -> ModelFiles:
    is_folder = path.is_dir()
    folder = path if is_folder else path.parent
    weights = _weights_in(path) if is_folder else path
    if config is None and (folder / CONFIG).is_file():
        config = folder / CONFIG
    if config is None:  # a file downloaded by hand
        known = [e for e in MODELS.values() if e.filename == weights.name and e.config]
        if not known or is_folder:
            raise UserError(f"{folder} has no {CONFIG}; name the config of the model {weights}")
        config = _existing(known[0].config or "")
    beside = folder / VOCABULARY
    return ModelFiles(config, weights, beside if beside.is_file() else None, name)


def _weights_in(folder: Path) -> Path:
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    tag = folder / _TAG
    if tag.is_file() and (last := folder / tag.read_text().strip()).is_file():
        return last
    raise UserError(f"{folder} has no weights ({', '.join(WEIGHTS_NAMES)} or a checkpoint)")


def _registered(entry: ModelEntry, revision: str | None, config: Path | None) -> ModelFiles:
    config = config or (_existing(entry.config) if entry.config else None)
    if entry.path:
        if revision is not None:
            raise UserError(f"{entry.name} is a local path, which has no revision {revision!r}")
        return _local(resolve(entry.path), config, entry.name)
    repo = _repo_of(entry, revision)
    weights = _weights_of_entry(entry, revision)
    name = entry.name if revision is None else f"{entry.name}@{revision}"
    if config is not None:
        return ModelFiles(config, weights, None, name)
    at = repo._replace(revision=_commit(weights, entry.filename))
    folder = f"{os.path.dirname(entry.filename)}/".lstrip("/")
    config = fetch(at, f"{folder}{CONFIG}")
    _fetch_named(at, config, folder)
    return ModelFiles(config, weights, fetch_if_there(at, f"{folder}{VOCABULARY}"), name)


def _repo_of(entry: ModelEntry, revision: str | None) -> Repo:
    return Repo(entry.repo_id, entry.repo_type, revision or entry.revision)


def _weights_of_entry(entry: ModelEntry, revision: str | None) -> Path:
    repo = _repo_of(entry, revision)
    if revision is not None and revision != entry.revision:  # size and hash are of another one
        return fetch(repo, entry.filename)
    return fetch(repo, entry.filename, entry.size, entry.sha256)


def _commit(path: Path, filename: str) -> str:
    """Return the commit of a file in the cache: .../snapshots/COMMIT/FILENAME."""
    return path.parents[filename.count("/")].name


def _weights_of(repo: Repo) -> Path:
    for name in WEIGHTS_NAMES:
        if (found := fetch_if_there(repo, name)) is not None:
            return found
    raise UserError(f"{repo} on the Hub has no weights ({' or '.join(WEIGHTS_NAMES)})")


def _fetch_named(repo: Repo, config: Path, folder: str = "") -> None:
    """Fetch the files beside a config that it names, such as CLIP's architecture."""
    from cat_seg.configuration.files import parse_yaml  # that room imports this one

    try:
        head = parse_yaml(config.read_text(encoding="utf-8"))["MODEL"]["SEM_SEG_HEAD"]
        values = [head.get(key) for key in _FILE_KEYS]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # load_config reports what is wrong with it
    for value in values:
        is_file = isinstance(value, str) and value.endswith((".json", ".txt"))
        if is_file and value == os.path.basename(value):
            fetch_if_there(repo, f"{folder}{value}")
