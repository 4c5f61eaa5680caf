"""The registry of models that can be named instead of giving a file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from cat_seg.errors import UserError

# Names stay clear of paths ("/", "\\") and of revisions ("@").
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelEntry:
    """A model, where its files are, and what is published about it.

    Attributes:
        name: letters, digits, ".", "_" and "-".
        repo_id: "owner/name" on the Hugging Face Hub; "" if `path` is given.
        repo_type: kind of that repository.
        filename: weights file in the repository.
        revision: branch, tag or commit of the repository.
        path: local file or folder of the model, instead of a repository.
        config: config file, a shipped one or a path; None if config.yaml lies beside the weights.
        size: bytes of the weights file, None if not recorded.
        sha256: SHA-256 of the weights file in lowercase hex, None if not recorded.
        license: license under which the weights are published.
        paper: title and identifier.
        miou: published mIoU in percent by benchmark.
        miou_source: where these figures are published.
    """

    name: str
    repo_id: str = ""
    repo_type: Literal["model", "space", "dataset"] = "model"
    filename: str = "model.safetensors"
    revision: str = "main"
    path: str = ""
    config: str | None = None
    size: int | None = None
    sha256: str | None = None
    license: str = ""
    paper: str = ""
    miou: Mapping[str, float] = field(default_factory=dict)
    miou_source: str = ""

    @property
    def location(self) -> str:
        """Where the weights are, for people to read."""
        if self.path:
            return self.path
        folder = {"model": "", "space": "spaces/", "dataset": "datasets/"}[self.repo_type]
        return f"{folder}{self.repo_id}/{self.filename}"


MODELS: dict[str, ModelEntry] = {}


def register_model(entry: ModelEntry) -> None:
    """Make a model available by its name, in this process.

    Raises:
        ValueError: the name is malformed or taken, the entry has not exactly one of `repo_id` and
            `path`, or `sha256` is no SHA-256.
    """
    if not _NAME.fullmatch(entry.name):
        raise ValueError(f"{entry.name!r} is no model name; use letters, digits, '.', '_' and '-'")
    if entry.name in MODELS:
        raise ValueError(f"there is a model named {entry.name!r} already")
    if bool(entry.repo_id) == bool(entry.path):
        raise ValueError(f"model {entry.name!r} needs either a repo_id or a path")
    if entry.sha256 is not None and not _SHA256.fullmatch(entry.sha256):
        raise ValueError(f"model {entry.name!r}: {entry.sha256!r} is no SHA-256 in lowercase hex")
    MODELS[entry.name] = entry


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the registered models that match a pattern such as "cat-seg-*"."""
    return sorted(name for name in MODELS if fnmatchcase(name, pattern))


def no_such_model(name: str) -> UserError:
    """Return the error for a name that is not in the registry, with the closest one that is."""
    close = difflib.get_close_matches(name, MODELS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(list_models())}"
    return UserError(f"no file {name}, and no model has that name; {hint}")


_HYRO_PAPER = "HyRo, CVPR 2026 workshop, arXiv 2605.08874"
_PAPER = "CAT-Seg: Cost Aggregation for Open-Vocabulary Semantic Segmentation, arXiv 2303.11797"
_SOURCE = "CAT-Seg, CVPR 2024, arXiv 2303.11797v2"

# The authors publish no checksums, so size and sha256 are not recorded.
register_model(
    ModelEntry(
        "cat-seg-base",
        repo_id="hamacojr/CAT-Seg-weights",
        repo_type="space",
        filename="model_base.pth",
        config="configs/vitb_384.yaml",
        license="MIT",
        paper=_PAPER,
        miou={
            **{"A-847": 12.0, "A-150": 31.8, "PC-459": 19.0},
            **{"PC-59": 57.5, "PAS-20": 94.6, "PAS-20b": 77.3},
        },
        miou_source=_SOURCE,
    )
)
register_model(
    ModelEntry(
        "cat-seg-large",
        repo_id="hamacojr/CAT-Seg-weights",
        repo_type="space",
        filename="model_large.pth",
        config="configs/vitl_336.yaml",
        license="MIT",
        paper=_PAPER,
        miou={
            **{"A-847": 16.0, "A-150": 37.9, "PC-459": 23.8},
            **{"PC-59": 63.3, "PAS-20": 97.0, "PAS-20b": 82.5},
        },
        miou_source=_SOURCE,
    )
)
register_model(
    ModelEntry(
        "hyro-base",
        repo_id="tmhoanggg/HyRo",
        filename="model_base.pth",
        config="configs/vitb_384_hyro.yaml",
        paper=_HYRO_PAPER,
    )
)
