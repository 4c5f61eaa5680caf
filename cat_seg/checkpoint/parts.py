"""The parts that a model's entries belong to, and the kind of model that they make."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

CLIP, AGGREGATOR, HPA, AFR = "CLIP", "aggregator", "HPA", "AFR"
_CLIP = r"sem_seg_head\.clip\."
# Adapters -> the system that has them, and the names of their entries.
_ADAPTERS = {
    "OFT adapters": ("H-CLIP", r"generators|slot_mixers|row_mixer"),
    "hyperbolic adapters": ("HyperCLIP", r"text|image"),
    "HyperCLIP++ adapters": ("HyperCLIP++", r"shared|(slot|row)_(in|out)"),
    "HyRo adapters": ("HyRo", r"(scaling|rotation)_(text|image)"),
    "LoRA adapters": ("CAT-Seg with LoRA", r"lora_\w+"),
}
# Part -> its entries; the first match wins.
_PARTS = {
    CLIP: re.compile(rf"{_CLIP}(text|image)\..*"),
    **{part: re.compile(rf"{_CLIP}adapter\.({names})") for part, (_, names) in _ADAPTERS.items()},
    AGGREGATOR: re.compile(r"sem_seg_head\.(aggregator|upsample[12])\..*"),
    AFR: re.compile(r"afr\..*"),
    "HPA projection": re.compile(r"hpa\.alignment_proj\..*"),
    "HPA prototypes": re.compile(r"hpa\..*"),
}
_OTHER = "unknown entries"
# Entries that show a component beside the adapters.
_SIGNS = {HPA: "hpa.prototypes", AFR: "afr.mix_weight"}


def part_of(name: str) -> str:
    """Return the part that an entry belongs to."""
    return next((part for part, own in _PARTS.items() if own.fullmatch(name)), _OTHER)


def components(names: Iterable[str]) -> list[str]:
    """Return the components that tell one kind of model from another: adapters, HPA and AFR."""
    names = set(names)
    parts = {part_of(name) for name in names}
    adapters = [part for part in _ADAPTERS if part in parts]
    return adapters + [component for component, sign in _SIGNS.items() if sign in names]


def kind_of(found: Sequence[str]) -> str:
    """Return the name of a model with these components."""
    innovations = [component for component in found if component not in _ADAPTERS]
    base = next((_ADAPTERS[part][0] for part in found if part in _ADAPTERS), "CAT-Seg")
    if base == "H-CLIP" and len(innovations) == 2:
        return "HPS-Seg (H-CLIP with HPA and AFR)"
    return " with ".join([base, *innovations])


def describe(names: Sequence[str], whole: Iterable[str]) -> list[str]:
    """Describe the parts that entries belong to, with a count if a part is incomplete.

    Args:
        names: the entries to describe.
        whole: all entries of the model or file that they are from.
    """
    totals = Counter(map(part_of, whole))
    words = []
    for part in (*_PARTS, _OTHER):
        own = [name for name in names if part_of(name) == part]
        if not own:
            continue
        if part == _OTHER:
            words.append(f"{len(own)} {part} (such as {own[0]})")
        elif len(own) == totals[part]:
            words.append(part)
        else:
            words.append(f"{len(own)} of {totals[part]} entries of the {part} (such as {own[0]})")
    return words
