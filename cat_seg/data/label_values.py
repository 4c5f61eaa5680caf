"""Mapping of label values that are not class indices: ids, colors, or shifted indices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from cat_seg.errors import UserError


@dataclass(frozen=True)
class LabelValues:
    """Mapping from the values in a dataset's label files to class indices.

    Attributes:
        key: the config key that defines the mapping, for messages.
        table: pairs of a file value and its class index or the ignore label, sorted by file value.
            Colors are encoded by `color_codes`.
        ignore_label: value of ignored pixels after mapping.
        are_colors: whether the files contain RGB colors.
        ignores_others: whether values outside the table are ignored instead of an error.
    """

    key: str
    table: tuple[tuple[int, int], ...]
    ignore_label: int
    are_colors: bool = False
    ignores_others: bool = False

    @classmethod
    def listed(
        cls,
        key: str,
        classes: Sequence[Collection[int]],
        ignored: Collection[int],
        ignore_label: int,
        **settings: bool,
    ) -> LabelValues:
        """Build the mapping from the values of each class, in class order, and the ignored values.

        A value in both maps to the class.
        """
        table = dict.fromkeys(ignored, ignore_label)
        for index, values in enumerate(classes):
            table |= dict.fromkeys(values, index)
        return cls(key, tuple(sorted(table.items())), ignore_label, **settings)

    def class_indices(self, values: np.ndarray, path: str) -> np.ndarray:
        """Map the values of a label file to class indices.

        Args:
            values: (H, W) integers, or uint8 RGB (H, W, 3) if `are_colors`.
            path: the file, for the message.

        Returns:
            (H, W) unsigned integers of the smallest sufficient type.

        Raises:
            UserError: a value is not in the table, unless `ignores_others`; the message names
                the file and the value.
        """
        if self.are_colors:
            values = color_codes(values)
        known, indices = np.array(self.table, dtype=np.int64).T
        places = np.searchsorted(known, values).clip(max=len(known) - 1)
        is_known = known[places] == values
        if not (self.ignores_others or is_known.all()):
            raise UserError(
                f"label {path} has the {self._named(values[~is_known][0])}, which {self.key} maps "
                'to no class; fix one of the two, or set LABEL_OTHERS to "ignore"'
            )
        dtype = np.min_scalar_type(max(self.ignore_label, indices.max()))
        return np.where(is_known, indices.astype(dtype)[places], dtype.type(self.ignore_label))

    def _named(self, value: int) -> str:
        if not self.are_colors:
            return f"value {value}"
        return f"color {[int(value) >> 16, int(value) >> 8 & 255, int(value) & 255]}"


class LabelFile(str):
    """The path of a label map together with the mapping of its values, for `read_label`."""

    values: LabelValues

    def __new__(cls, path: str, values: LabelValues) -> LabelFile:
        """Attach `values` to a path."""
        made = super().__new__(cls, path)
        made.values = values
        return made

    # str declares only the path.
    def __getnewargs__(self) -> tuple[str, LabelValues]:  # type: ignore[override]
        return str(self), self.values


def color_codes(colors: np.ndarray) -> np.ndarray:
    """Encode 8-bit RGB colors (..., 3) as one integer each: R * 65536 + G * 256 + B."""
    red, green, blue = np.moveaxis(np.asarray(colors).astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue
