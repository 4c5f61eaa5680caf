"""The classes of a call: names, groups of names, and how they are worded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cat_seg.data import vocabulary_from
from cat_seg.data.class_names import check_names, list_names
from cat_seg.errors import UserError, user_errors
from cat_seg.modeling.wording import DEFAULT, Wording

Vocabulary: TypeAlias = "Iterable[str] | str | Path | Mapping[str, Iterable[str] | str]"


@dataclass(frozen=True)
class Classes:
    """T classes made of N >= T names that a model is asked for.

    names: the T class names, which labels are indices into.
    prompted: the N names.
    groups: for each class, the number of its names, which follow each other in `prompted`; None
        if each name is a class.
    wording: which synonyms and prompts represent a name.
    """

    names: tuple[str, ...]
    prompted: tuple[str, ...]
    groups: tuple[int, ...] | None = None
    wording: Wording = DEFAULT


def classes_of(vocabulary: Vocabulary) -> Classes:
    """Read a vocabulary in any form.

    Args:
        vocabulary: what `cat_seg.data.vocabulary_from` takes, or a mapping from class names to
            their lists of names (or one text of names separated by commas).

    Raises:
        UserError: see `vocabulary_from`; or a name is in two groups, or a group is empty.
    """
    if not isinstance(vocabulary, Mapping):
        names = tuple(vocabulary_from(vocabulary))
        return Classes(names, names)
    names = tuple(check_names(list(vocabulary), "the vocabulary"))
    prompted: list[str] = []
    groups = []
    for name, members in zip(names, vocabulary.values(), strict=True):
        source = f"the vocabulary's class {name!r}"
        if isinstance(members, str):
            members = [member for member in members.split(",") if member.strip()]
        listed = list_names(members, source)
        for member in listed:
            if member in prompted:
                raise UserError(f"{source} has {member!r}, which another class has; keep one")
        groups.append(len(listed))
        prompted += listed
    return Classes(names, tuple(prompted), tuple(groups))


def wording_of(synonyms: str, prompts: Iterable[str]) -> Wording:
    """Return the wording of a call.

    Raises:
        UserError: naming the argument that is wrong.
    """
    source = "the vocabulary"
    with user_errors(synonyms=source, prompts=source):
        return Wording(synonyms, tuple([prompts] if isinstance(prompts, str) else prompts))
