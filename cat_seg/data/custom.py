"""A user's own datasets: folders and a class list in the config (DATASETS.CUSTOM), no code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from cat_seg.data.registration import (
    IMAGE_SUFFIXES,
    DatasetSpec,
    Layout,
    holds,
    register,
    unregister,
)
from cat_seg.errors import UserError
from cat_seg.paths import resolve

_NODE = "DATASETS.CUSTOM"

# What each key takes, by the pattern of its text.
_REQUIRED = {
    "IMAGES": (str, r".+", "the folder of the images"),
    "LABELS": (str, r".+", "the folder of the label maps"),
    "CLASSES": (str, r".+", "the path of the class list (.json or .txt)"),
}
_OPTIONAL = {
    "LABEL_SUFFIX": (str, r"\.\w+", 'the suffix of the label maps, such as ".png"'),
    "IGNORE_LABEL": (int, r"\d+", "the label of pixels that do not count, 0 or more"),
    "BACKGROUND_FROM": (int, r"[1-9]\d*", "the index of the first name that means background"),
}
_KEYS = _REQUIRED | _OPTIONAL


@dataclass(frozen=True)
class CustomSpec(DatasetSpec):
    """A dataset of DATASETS.CUSTOM, whose messages name its keys there."""

    def classes(self) -> list[str]:
        """Read the class names.

        Raises:
            UserError: naming CLASSES, BACKGROUND_FROM or IGNORE_LABEL.
        """
        try:
            names = super().classes()
        except UserError as error:
            raise UserError(f"{_NODE}.{self.name}.CLASSES: {error}") from error
        if self.background_from is not None and self.background_from >= len(names):
            raise UserError(
                f"{_NODE}.{self.name}.BACKGROUND_FROM is {self.background_from}; "
                f"{self.vocabulary} lists {len(names)} names, from index 0 on"
            )
        highest = len(names) - 1 if self.background_from is None else self.background_from
        # A smaller one may be meant, as 0 for "other"; this is the default.
        if self.ignore_label == 255 <= highest:
            raise UserError(
                f"{_NODE}.{self.name}.IGNORE_LABEL is 255, also the index of a class in "
                f"{self.vocabulary}; set it to 65535, in label maps of 16 bits"
            )
        return names

    def missing(self) -> str:
        """Say in one line which of the two folders lacks files."""
        (layout,) = self.layouts
        key, folder, suffixes = "LABELS", layout.labels, {self.label_suffix}
        if not holds(Path(layout.images), IMAGE_SUFFIXES):
            key, folder, suffixes = "IMAGES", layout.images, IMAGE_SUFFIXES
        return (
            f"{_NODE}.{self.name}.{key}: {folder} is no folder with files that end in "
            f"{', '.join(sorted(suffixes))}; name {_KEYS[key][2]}"
        )


def register_custom(cfg: CfgNode) -> None:
    """Register the datasets of DATASETS.CUSTOM, in place of earlier ones of the same names.

    No folder or file needs to be there until a dataset is used.

    Raises:
        UserError: naming the key that is unknown, missing or has a wrong value, or a name that a
            dataset of detectron2 or of this project already has.
    """
    for name, node in cfg.DATASETS.CUSTOM.items():
        spec = _spec(name, node)
        if name in DatasetCatalog:
            if not isinstance(MetadataCatalog.get(name).get("spec"), CustomSpec):
                raise UserError(f"{_NODE}.{name}: a built-in dataset has that name; choose another")
            unregister(name)
        register(spec)


def _spec(name: str, node: object) -> CustomSpec:
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"{_NODE}: {name!r} is no name; use letters, digits, _ and -")
    if not isinstance(node, CfgNode):
        raise UserError(f"{_NODE}.{name} is {node!r}; it takes a section with {', '.join(_KEYS)}")
    for key in node:
        if key not in _KEYS:
            raise UserError(f"{_NODE}.{name}.{key} is unknown; known are {', '.join(_KEYS)}")
    for key, (kind, pattern, wanted) in _KEYS.items():
        if key not in node:
            if key in _REQUIRED:
                raise UserError(f"{_NODE}.{name}.{key} is missing; set it to {wanted}")
            continue
        if type(node[key]) is not kind or not re.fullmatch(pattern, str(node[key])):
            raise UserError(f"{_NODE}.{name}.{key} is {node[key]!r}; it takes {wanted}")
    # Absolute, as the folders of other datasets are relative to the datasets root.
    images, labels = (str(resolve(node[key]).absolute()) for key in ("IMAGES", "LABELS"))
    return CustomSpec(
        name,
        node.CLASSES,
        (Layout(images, labels),),
        label_suffix=node.get("LABEL_SUFFIX", ".png").lower(),
        ignore_label=node.get("IGNORE_LABEL", 255),
        background_from=node.get("BACKGROUND_FROM"),
    )
