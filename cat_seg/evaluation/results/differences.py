"""In what the settings, the code, the weights and the data of two results differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cat_seg.configuration.loading import leaves

NOT_RECORDED = "not recorded"
# Paths, which are compared by content or do not matter.
_WITHOUT = ("OUTPUT_DIR", "MODEL.WEIGHTS", "DATASETS.TEST")

Content = Mapping[str, Any]


class Difference(NamedTuple):
    """One thing in which two results differ.

    Attributes:
        part: "setting", "code", "environment", "weights" or "data".
        name: config key or other name.
        first: value of A; None for a key that it does not have.
        second: value of B.
    """

    part: str
    name: str
    first: Any
    second: Any


def differences(first: Content, second: Content) -> list[Difference]:
    """Return everything in which two results.json differ, apart from the metrics.

    Files of earlier versions lack some entries. If one file has a part and the other does not, the
    part is one difference.

    Args:
        first: content of A.
        second: content of B.
    """
    return [
        *_between("setting", "config", first.get("config"), second.get("config")),
        *_between("code", "commit", first.get("commit"), second.get("commit")),
        *_between(
            "environment", "environment", first.get("environment"), second.get("environment")
        ),
        *_between("weights", "sha256", _weights(first), _weights(second)),
        *_between("data", "dataset", first.get("dataset"), second.get("dataset")),
        *_between("data", "classes", first.get("vocabulary"), second.get("vocabulary")),
        *_between("data", "lists", first.get("data"), second.get("data")),
        *_between("data", "counts", _counts(first), _counts(second)),
    ]


def _between(part: str, name: str, first: Any, second: Any) -> Iterator[Difference]:
    if first == second:
        return
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        old, new = dict(leaves(first)), dict(leaves(second))
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in _WITHOUT and old.get(key) != new.get(key):
                yield Difference(part, key, old.get(key), new.get(key))
    elif isinstance(first, list) and isinstance(second, list):
        yield Difference(part, name, *_lists(first, second))
    else:
        texts = [_present(value) for value in (first, second)]
        yield Difference(part, name, *texts)


def _present(value: Any) -> Any:
    if value is None:
        return NOT_RECORDED
    return "recorded" if isinstance(value, Mapping | list) else value


def _lists(first: list[Any], second: list[Any]) -> tuple[str, str]:
    """Describe two different lists of names by their lengths and their first difference."""
    pairs = enumerate(zip(first, second, strict=False))
    at = next((index for index, (one, other) in pairs if one != other), None)
    if at is None:
        return f"{len(first)} names", f"{len(second)} names"
    return f"{len(first)} names, {at}: {first[at]}", f"{len(second)} names, {at}: {second[at]}"


def _weights(content: Content) -> Any:
    """Return the weights' hash, or what the file says in its place."""
    weights = content.get("weights") or {}
    return weights.get("sha256") or ("untrained" if weights.get("untrained") else None)


def _counts(content: Content) -> Any:
    """Return the counts that files of all versions have and that say what was evaluated."""
    counts = content.get("counts")
    if not isinstance(counts, Mapping):
        return None
    return {name: counts.get(name) for name in ("images", "skipped", "labeled_pixels")}
