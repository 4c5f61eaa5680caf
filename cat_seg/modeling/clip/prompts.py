"""From class names to token ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import open_clip
from detectron2.utils import comm
from open_clip.tokenizer import get_clean_fn
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from torch import Tensor

from cat_seg.data.class_names import first_synonym
from cat_seg.errors import UserError
from cat_seg.modeling.clip.prefix_tree import PrefixTree, prefix_tree
from cat_seg.modeling.clip.prompt_check import PromptReport

# Lists of names that are remembered.
MOST_LISTS = 32

_SCENE = "A photo of a {} in the scene".format
# In CAT-Seg's order: each template has its own input channel in the cost embedding.
TEMPLATES = {
    "single": (_SCENE,),
    "imagenet_select": (*SIMPLE_IMAGENET_TEMPLATES, _SCENE),
    "imagenet": OPENAI_IMAGENET_TEMPLATES,
}


class Prompts:
    """Tokenised prompts: every class name in every template.

    Args:
        ensemble: the value of MODEL.PROMPT_ENSEMBLE_TYPE.
        context_length: tokens of a prompt, padding included.

    Raises:
        UserError: if there is no such ensemble.
    """

    def __init__(self, ensemble: str, context_length: int) -> None:
        if ensemble not in TEMPLATES:
            raise UserError(
                f"MODEL.PROMPT_ENSEMBLE_TYPE: '{ensemble}' is none of {', '.join(TEMPLATES)}"
            )
        self.templates = TEMPLATES[ensemble]
        self._tokenizer = _tokenizer(context_length)
        self.context_length = context_length
        self._trees: dict[tuple[str, ...], PrefixTree] = {}
        self._checked: set[tuple[str, ...]] = set()

    def __len__(self) -> int:
        return len(self.templates)

    def tokenize(self, names: Sequence[str]) -> Tensor:
        """Token ids (T, P, context length); of a name "a, b, c" only the first synonym is used."""
        words = [first_synonym(name) for name in names]
        prompts = [template(word) for word in words for template in self.templates]
        return self._tokenizer(prompts).unflatten(0, (len(words), len(self.templates)))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text of any length, without the start and end of text."""
        return self._tokenizer.encode(text)

    def check(self, names: Sequence[str], source: str) -> None:
        """Warn of class names that CLIP cannot tell apart or does not read to the end.

        The main process logs the warnings, once for each list of names.

        Args:
            names: class names.
            source: where they come from, for messages.

        Raises:
            UserError: names that differ make the same prompts because these are cut.
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

    def tree(self, names: Sequence[str]) -> PrefixTree:
        """The prefix tree of the T * P prompts, class by class; each is built once."""
        names = tuple(names)
        if names not in self._trees:
            if len(self._trees) >= MOST_LISTS:
                self._trees.clear()
            self._trees[names] = prefix_tree(self.tokenize(names).flatten(0, 1))
        return self._trees[names]


@cache
def _tokenizer(context_length: int) -> open_clip.SimpleTokenizer:
    tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
    tokenizer.clean_fn = _clean
    return tokenizer


def _clean(text: str) -> str:
    """Clean a text as CLIP's tokenizer does, and keep its special tokens in it ordinary text.

    The tokenizer always splits between "<" and a letter, so the space changes nothing else.
    """
    return re.sub("<(?=(?:start|end)_of_text>)", "< ", _open_clip_clean(text))


_open_clip_clean = get_clean_fn("lower")
