"""SigLIP's tokenizers, in the files that the Hub has of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import get_clean_fn
from tokenizers import Tokenizer
from torch import Tensor

from cat_seg.errors import UserError
from cat_seg.hub.download import Repo, fetch
from cat_seg.utils.paths import resolve

KEY = "MODEL.SEM_SEG_HEAD.CLIP_TOKENIZER"
TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"


class HubTokenizer:
    """A tokenizer as open_clip's SigLIP models use it: an end token after the text, then padding.

    Args:
        folder: folder with tokenizer.json and tokenizer_config.json; None to download them.
        repository: where they are on the Hub.
        context_length: tokens of a prompt, with end token and padding.
        clean: open_clip's name of the function that cleans a text.

    Raises:
        UserError: the files cannot be downloaded or read.
    """

    def __init__(
        self, folder: str | None, repository: str, context_length: int, clean: str
    ) -> None:
        files = [_file(folder, repository, name) for name in (TOKENIZER, SETTINGS)]
        try:
            self._tokenizer = Tokenizer.from_file(str(files[0]))
            settings = json.loads(files[1].read_text(encoding="utf-8"))
            self._end, self._padding = (
                self._id(settings, name) for name in ("eos_token", "pad_token")
            )
        except Exception as error:  # tokenizers raises plain Exceptions
            raise UserError(
                f"{KEY}: {files[0].parent} has no readable tokenizer ({error}); give a folder with"
                f" {TOKENIZER} and {SETTINGS}"
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._clean = get_clean_fn(clean)
        self.context_length = context_length

    def __call__(self, texts: list[str]) -> Tensor:
        """Return token ids (N, context length) of N texts, truncated and padded."""
        ids = torch.full((len(texts), self.context_length), self._padding)
        for row, text in zip(ids, texts, strict=True):
            tokens = [*self.encode(text)[: self.context_length - 1], self._end]
            row[: len(tokens)] = torch.tensor(tokens)
        return ids

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text of any length, without an end token."""
        return self._tokenizer.encode(self._clean(text), add_special_tokens=False).ids

    def _id(self, settings: Mapping[str, Any], name: str) -> int:
        token = settings[name]
        found = self._tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token)
        if found is None:
            raise ValueError(f"no {name} {token}")
        return found


@cache
def hub_tokenizer(
    folder: str | None, repository: str, context_length: int, clean: str
) -> HubTokenizer:
    """Return a `HubTokenizer`, read once by each process."""
    return HubTokenizer(folder, repository, context_length, clean)


def _file(folder: str | None, repository: str, name: str) -> Path:
    if folder:
        path = resolve(folder) / name
        if not path.is_file():
            raise UserError(f"{KEY}: no file {path}; give a folder with {TOKENIZER} and {SETTINGS}")
        return path
    try:
        return fetch(Repo(repository), name)
    except UserError as error:
        raise UserError(
            f"{KEY}: {error}; without a network, copy {TOKENIZER} and {SETTINGS} of {repository}"
            f" into a folder and set {KEY} to it"
        ) from error
