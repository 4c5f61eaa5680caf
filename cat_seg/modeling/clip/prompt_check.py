"""Detect class names that CLIP cannot tell apart, or that are too long for it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cat_seg.data.class_names import first_synonym

if TYPE_CHECKING:
    from cat_seg.modeling.clip.prompts import Prompts

logger = logging.getLogger(__name__)

MOST_LISTED, LONGEST_SHOWN = 12, 40


class PromptReport:
    """Class names whose prompts are identical or truncated.

    Attributes:
        same: groups of indices whose names have the same tokens, in index order.
        cut: indices of names that exceed the context length in at least one template.

    Raises:
        ValueError: different names give the same prompt after truncation.
    """

    def __init__(self, prompts: Prompts, names: Sequence[str], source: str) -> None:
        self._names = names
        self._context_length = prompts.context_length
        self._source = source
        words = [first_synonym(name) for name in names]
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, word in enumerate(words):
            groups[tuple(prompts.encode(word))].append(index)
        self.same = [group for group in groups.values() if len(group) > 1]
        longest = max(prompts.templates, key=lambda template: len(prompts.encode(template("x"))))
        cut = (len(prompts.encode(longest(word))) > prompts.room for word in words)
        self.cut = [index for index, is_cut in enumerate(cut) if is_cut]
        distinct = {group[0] for group in groups.values()}
        self._refuse_same_after_cut(prompts, [index for index in self.cut if index in distinct])

    def warn(self) -> None:
        """Log one warning for identical names and one for truncated names."""
        if self.same:
            groups = [self._list(group, " = ", most=4) for group in self.same]
            logger.warning(
                "%s: CLIP cannot tell %d of the %d classes apart, because it ignores case and all "
                "synonyms but the first; only the first of each group gets pixels: %s",
                self._source,
                sum(map(len, self.same)),
                len(self._names),
                _join(groups, "; ", MOST_LISTED),
            )
        if self.cut:
            logger.warning(
                "%s: the prompts of %d of the %d classes are truncated to CLIP's limit of %d "
                "tokens: %s",
                self._source,
                len(self.cut),
                len(self._names),
                self._context_length,
                self._list(self.cut, ", ", MOST_LISTED),
            )

    def _refuse_same_after_cut(self, prompts: Prompts, indices: Sequence[int]) -> None:
        first_index: dict[bytes, int] = {}
        for index in indices:
            tokens = prompts.tokenize([self._names[index]]).numpy().tobytes()
            first = first_index.setdefault(tokens, index)
            if first != index:
                raise ValueError(
                    f"names {first} ({self._quoted(first)}) and {index} "
                    f"({self._quoted(index)}) give the same prompt when truncated to CLIP's limit "
                    f"of {self._context_length} tokens; shorten them"
                )

    def _list(self, indices: Sequence[int], separator: str, most: int) -> str:
        return _join([f"{self._quoted(index)} ({index})" for index in indices], separator, most)

    def _quoted(self, index: int) -> str:
        name = self._names[index]
        return repr(name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}...")


def _join(items: Sequence[str], separator: str, most: int) -> str:
    rest = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *rest])
