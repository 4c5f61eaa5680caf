"""From class names to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import open_clip
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from torch import Tensor

from ...errors import UserError
from .prefix_tree import PrefixTree, prefix_tree

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
        self._trees: dict[tuple[str, ...], PrefixTree] = {}

    def __len__(self) -> int:
        return len(self.templates)

    def tokenize(self, names: Sequence[str]) -> Tensor:
        """Token ids (T, P, context length); of a name "a, b, c" only the first synonym is used."""
        words = [name.split(",")[0].strip() for name in names]
        prompts = [template(word) for word in words for template in self.templates]
        return self._tokenizer(prompts).unflatten(0, (len(words), len(self.templates)))

    def tree(self, names: Sequence[str]) -> PrefixTree:
        """The prefix tree of the T * P prompts, class by class; each is built once."""
        names = tuple(names)
        if names not in self._trees:
            self._trees[names] = prefix_tree(self.tokenize(names).flatten(0, 1))
        return self._trees[names]


@cache
def _tokenizer(context_length: int) -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(context_length=context_length)
