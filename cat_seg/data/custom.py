"""User datasets without code: folders and a class list in the config (DATASETS.CUSTOM)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from cat_seg.data.folders import IMAGE_SUFFIXES, holds
from cat_seg.data.label_values import LabelValues, color_codes
from cat_seg.data.registration import register, unregister
from cat_seg.data.specs import DatasetSpec, Layout
from cat_seg.errors import UserError
from cat_seg.utils.paths import resolve

_NODE = "DATASETS.CUSTOM"

_ENDING = r"[^/]*\.\w+"

# For each key: the type, a pattern that str(value) must match, and a description for messages.
_REQUIRED = {
    "IMAGES": (str, r".+", "the folder of the images"),
    "LABELS": (str, r".+", "the folder of the label maps"),
    "CLASSES": (str, r".+", "the path of the class list (.json or .txt)"),
}
_OPTIONAL = {
    "IMAGE_SUFFIX": (
        str,
        _ENDING,
        'the filename ending of the images, such as ".png" or "_rgb.png"',
    ),
    "LABEL_SUFFIX": (
        str,
        _ENDING,
        'the filename ending of the label maps, such as ".png" or "_ids.png"',
    ),
    "SUBFOLDERS": (bool, r"True|False", "True to also read files in subfolders, or False"),
    "LABEL_SHIFT": (int, r"-?\d{1,5}", "an integer to add to each label value, such as -1"),
    "LABEL_IDS": (list, r"\[.+\]", "a list with the id, or a list of ids, of each class"),
    "LABEL_COLORS": (
        list,
        r"\[.+\]",
        "a list with the color [R, G, B], or a list of colors, of each class",
    ),
    "LABEL_OTHERS": (str, r"error|ignore", '"error" or "ignore"'),
    "IGNORE_LABEL": (int, r"\d+", "the label value of pixels to ignore, 0 or more"),
    "BACKGROUND_FROM": (int, r"[1-9]\d*", "the index of the first background name, 1 or more"),
    "MADE_BY": (str, r".+", 'what to do if the files are missing, such as "run `make data`"'),
}
_KEYS = _REQUIRED | _OPTIONAL
# Mutually exclusive keys that map label values to classes.
_TABLES = ("LABEL_SHIFT", "LABEL_IDS", "LABEL_COLORS")
_HIGHEST_LABEL = 65535  # 16 bits


@dataclass(frozen=True)
class CustomSpec(DatasetSpec):
    """A dataset from DATASETS.CUSTOM, whose error messages name its config keys.

    Attributes:
        table_key: the key of _TABLES that is set, if any.
        shift: value of LABEL_SHIFT.
        table: the ids or color codes of each class, from LABEL_IDS or LABEL_COLORS.
        others: value of LABEL_OTHERS, if set.
    """

    table_key: str | None = None
    shift: int = 0
    table: tuple[tuple[int, ...], ...] = ()
    others: str | None = None

    def label_values(self) -> LabelValues | None:
        """Return the mapping from values in the label files to classes.

        Returns:
            The mapping, or None if the values are class indices.

        Raises:
            UserError: a table does not fit the class list, or IGNORE_LABEL is also a class; the
                message names the key.
        """
        if self.table_key is None and self.others is None:
            return None
        key = f"{_NODE}.{self.name}.{self.table_key or 'CLASSES'}"
        classes = len(self.label_names())
        if self.table and len(self.table) != classes:
            raise UserError(
                f"{key} has {len(self.table)} entries, but {self.vocabulary} has {classes} "
                "classes; give one entry per class, in the same order"
            )
        if self.ignore_label < classes:
            raise UserError(
                f"{_NODE}.{self.name}.IGNORE_LABEL is {self.ignore_label}, which is also a "
                f"class index; with {self.table_key or 'LABEL_OTHERS'}, remove it or set it to 255"
            )
        values = self.table or [(index - self.shift,) for index in range(classes)]
        ignored = set() if self.table_key == "LABEL_COLORS" else {self.ignore_label}
        if self.table_key == "LABEL_SHIFT":
            ignored |= set(range(-self.shift))
        return LabelValues.listed(
            *(key, values, ignored, self.ignore_label),
            are_colors=self.table_key == "LABEL_COLORS",
            ignores_others=self.others == "ignore",
        )

    def classes(self) -> list[str]:
        """Read the class names.

        Raises:
            UserError: CLASSES, BACKGROUND_FROM or IGNORE_LABEL is wrong; the message names it.
        """
        try:
            names = super().classes()
        except UserError as error:
            raise UserError(f"{_NODE}.{self.name}.CLASSES: {error}") from error
        if self.background_from is not None and self.background_from >= len(names):
            raise UserError(
                f"{_NODE}.{self.name}.BACKGROUND_FROM is {self.background_from}, but "
                f"{self.vocabulary} has {len(names)} names; use an index below {len(names)}"
            )
        highest = len(names) - 1 if self.background_from is None else self.background_from
        # A smaller IGNORE_LABEL may be intended, such as 0 for "other". 255 is the default.
        if self.ignore_label == 255 <= highest:
            raise UserError(
                f"{_NODE}.{self.name}.IGNORE_LABEL is 255, which is also a class index in "
                f"{self.vocabulary}; use 16-bit label maps and set it to 65535"
            )
        return names

    def missing(self) -> str:
        """Return a one-line message: which folder has no files, and what to do."""
        (layout,) = self.layouts
        key, folder, suffixes = "LABELS", layout.labels, frozenset({self.label_suffix})
        if not holds(Path(layout.images), self.image_suffixes, self.subfolders):
            key, folder, suffixes = "IMAGES", layout.images, self.image_suffixes
        problem = (
            f"{_NODE}.{self.name}.{key}: {folder} is not a folder with files that end in "
            f"{', '.join(sorted(suffixes))}"
        )
        if not self.subfolders and holds(Path(folder), suffixes, subfolders=True):
            return f"{problem}, but its subfolders have some; set SUBFOLDERS to True"
        return f"{problem}; {self.made_by or f'set it to {_KEYS[key][2]}'}"


def register_custom(cfg: CfgNode) -> None:
    """Register the datasets in DATASETS.CUSTOM, replacing earlier ones with the same names.

    Folders and files need not exist until a dataset is used.

    Raises:
        UserError: a key is unknown, missing or has an invalid value (the message names it), or a
            built-in dataset of detectron2 or this project already has the name.
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
        raise UserError(f"{_NODE}: {name!r} is not a valid name; use letters, digits, _ and -")
    if not isinstance(node, CfgNode):
        raise UserError(f"{_NODE}.{name} is {node!r}; set it to a section with {', '.join(_KEYS)}")
    for key in node:
        if key not in _KEYS:
            raise UserError(f"{_NODE}.{name}.{key} is unknown; choose from {', '.join(_KEYS)}")
    for key, (kind, pattern, wanted) in _KEYS.items():
        if key not in node:
            if key in _REQUIRED:
                raise UserError(f"{_NODE}.{name}.{key} is missing; set it to {wanted}")
            continue
        value = list(node[key]) if type(node[key]) is tuple else node[key]
        if type(value) is not kind or not re.fullmatch(pattern, str(value)):
            raise UserError(f"{_NODE}.{name}.{key} is {node[key]!r}; set it to {wanted}")
    if node.get("IGNORE_LABEL", 0) > _HIGHEST_LABEL:
        raise UserError(
            f"{_NODE}.{name}.IGNORE_LABEL is {node.IGNORE_LABEL}; label maps have at most 16 bits, "
            f"so set it to {_HIGHEST_LABEL} or less"
        )
    tables = [key for key in _TABLES if key in node]
    if len(tables) > 1:
        raise UserError(
            f"{_NODE}.{name} has {' and '.join(tables)}, which are mutually exclusive; keep one of "
            "them"
        )
    # Absolute, since relative layout folders would be relative to the datasets root.
    images, labels = (str(resolve(node[key]).absolute()) for key in ("IMAGES", "LABELS"))
    return CustomSpec(
        name,
        node.CLASSES,
        (Layout(images, labels),),
        label_suffix=node.get("LABEL_SUFFIX", ".png").lower(),
        ignore_label=node.get("IGNORE_LABEL", 255),
        background_from=node.get("BACKGROUND_FROM"),
        image_suffixes=(
            frozenset({node.IMAGE_SUFFIX.lower()}) if "IMAGE_SUFFIX" in node else IMAGE_SUFFIXES
        ),
        subfolders=node.get("SUBFOLDERS", False),
        made_by=node.get("MADE_BY", ""),
        table_key=tables[0] if tables else None,
        shift=node.get("LABEL_SHIFT", 0),
        table=_table(name, node, tables),
        others=node.get("LABEL_OTHERS"),
    )


def _table(name: str, node: CfgNode, tables: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return the ids or color codes of each class, from LABEL_IDS or LABEL_COLORS."""
    if not tables or tables[0] == "LABEL_SHIFT":
        return ()
    key, read = tables[0], _color if tables[0] == "LABEL_COLORS" else _id
    taken: set[int] = set()
    table = []
    for entry in node[key]:
        one = read(entry)
        found = _several(entry, read) if one is None else [one]
        codes = [code for code in found if code is not None]
        if not codes or None in found:
            raise UserError(
                f"{_NODE}.{name}.{key} has the invalid entry {entry!r}; set it to {_KEYS[key][2]}"
            )
        if taken & set(codes):
            raise UserError(
                f"{_NODE}.{name}.{key} has {entry!r}, or a part of it, more than once; remove "
                "the duplicate"
            )
        taken |= set(codes)
        table.append(tuple(codes))
    return tuple(table)


def _several(entry: object, read: Callable[[object], int | None]) -> list[int | None]:
    return [read(one) for one in entry] if isinstance(entry, list | tuple) else []


def _id(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _HIGHEST_LABEL else None


def _color(value: object) -> int | None:
    is_color = (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    )
    return int(color_codes(np.asarray(value))) if is_color else None
