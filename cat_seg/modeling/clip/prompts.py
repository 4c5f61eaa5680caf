"""Conversion of class names to prompts and token ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import open_clip
import torch
from detectron2.utils import comm
from open_clip.tokenizer import get_clean_fn
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from torch import Tensor

from cat_seg.data.class_names import first_synonym
from cat_seg.modeling.clip.prefix_tree import prefix_tree
from cat_seg.modeling.clip.prompt_check import PromptReport

# Maximum number of name lists in each cache.
MOST_LISTS = 32

_SCENE = "A photo of a {} in the scene".format
# CAT-Seg's order matters: each template has its own input channel in the cost embedding.
TEMPLATES = {
    "single": (_SCENE,),
    "imagenet_select": (*SIMPLE_IMAGENET_TEMPLATES, _SCENE),
    "imagenet": OPENAI_IMAGENET_TEMPLATES,
}


class Tokenizer(Protocol):
    """A tokenizer with a context length."""

    def __call__(self, texts: list[str]) -> Tensor:
        """Return token ids (N, context length) of N texts, truncated and padded."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text of any length, without start and end tokens."""
        ...


class Prompts:
    """Tokenized prompts of every class name in every template.

    Args:
        ensemble: a key of TEMPLATES.
        context_length: tokens per prompt, including padding.
        own: templates that replace the ensemble's, such as "a photo of a {}".
        tokenizer: a tokenizer with this context length; None for CLIP's.
        arrange: turns token ids (N, context length) into what the text tower takes.

    Raises:
        ValueError: there is no such ensemble.
    """

    def __init__(
        self,
        ensemble: str,
        context_length: int,
        own: Sequence[str] = (),
        tokenizer: Tokenizer | None = None,
        arrange: Callable[[Tensor], Any] = prefix_tree,
    ) -> None:
        if ensemble not in TEMPLATES:
            raise ValueError(f"ensemble must be one of {', '.join(TEMPLATES)}; it is {ensemble!r}")
        self.templates = tuple(text.format for text in own) or TEMPLATES[ensemble]
        self._given = tokenizer
        self._tokenizer: Tokenizer = tokenizer or _tokenizer(context_length)
        # CLIP has a start and an end token, SigLIP an end token alone.
        self.room = context_length - (1 if tokenizer else 2)
        self.context_length = context_length
        self._arrange = arrange
        self._arranged: dict[tuple[tuple[str, ...], torch.device | None], Any] = {}
        self._checked: set[tuple[str, ...]] = set()
        self._others: dict[tuple[str, ...], Prompts] = {}

    def replaced(self, templates: tuple[str, ...]) -> Prompts:
        """Return the prompts of other templates, such as "a photo of a {}", for the same model."""
        if templates not in self._others:
            if len(self._others) >= MOST_LISTS:
                self._others.clear()
            self._others[templates] = Prompts(
                "single", self.context_length, templates, self._given, self._arrange
            )
        return self._others[templates]

    def __len__(self) -> int:
        return len(self.templates)

    def tokenize(self, names: Sequence[str]) -> Tensor:
        """Return token ids (T, P, context length); only the first synonym of "a, b, c" is used."""
        words = [first_synonym(name) for name in names]
        prompts = [template(word) for word in words for template in self.templates]
        return self._tokenizer(prompts).unflatten(0, (len(words), len(self.templates)))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text of any length, without start and end tokens."""
        return self._tokenizer.encode(text)

    def check(self, names: Sequence[str], source: str) -> None:
        """Warn about class names that CLIP cannot tell apart or that are truncated.

        The main process logs the warnings, once per list of names.

        Args:
            names: class names.
            source: origin of the names, for messages.

        Raises:
            ValueError: different names give the same prompt after truncation.
        """
        names = tuple(names)
        if names in self._checked:
            return
        report = PromptReport(self, names, source)
        if len(self._checked) >= MOST_LISTS:
            self._checked.clear()
        self._checked.add(names)
        if comm.is_main_process():
            report.warn()

    def arranged(self, names: Sequence[str], device: torch.device | None = None) -> Any:
        """Return the T * P prompts for the text tower, ordered by class, then template; cached.

        Args:
            names: T class names.
            device: where they are to be, and are kept; the CPU by default.
        """
        names = tuple(names)
        key = names, None if device is None or device.type == "cpu" else device
        if key not in self._arranged:
            with torch.inference_mode(False):  # training may use them later
                if key[1] is None:
                    prompts = self._arrange(self.tokenize(names).flatten(0, 1))
                else:
                    prompts = self.arranged(names).to(key[1])
            if len(self._arranged) >= MOST_LISTS:
                self._arranged.clear()
            self._arranged[key] = prompts
        return self._arranged[key]


@cache
def _tokenizer(context_length: int) -> open_clip.SimpleTokenizer:
    tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
    tokenizer.clean_fn = _clean
    return tokenizer


def _clean(text: str) -> str:
    """Clean a text as CLIP's tokenizer does, but treat its special tokens as ordinary text.

    A space after "<" keeps "<start_of_text>" and "<end_of_text>" from being read as special tokens.
    It has no other effect, because the tokenizer always splits between "<" and a letter.
    """
    return re.sub("<(?=(?:start|end)_of_text>)", "< ", _open_clip_clean(text))


_open_clip_clean = get_clean_fn("lower")
