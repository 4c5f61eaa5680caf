"""Label maps whose values are not class indices yet: ids, colors, or indices that are shifted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from cat_seg.errors import UserError


@dataclass(frozen=True)
class LabelValues:
    """Which class each value in the label files of a dataset stands for.

    Attributes:
        key: the config key that says so, for messages.
        table: pairs of a value in the files and a class index or the ignore label, in the order of
            the values. A color is the value of `color_codes`.
        ignore_label: what ignored pixels become.
        are_colors: the files hold RGB colors.
        ignores_others: a value outside the table is ignored; otherwise it is an error.
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
        """Build the table from the values of each class, in class order, and the ignored ones.

        A value that is both stands for the class.
        """
        table = dict.fromkeys(ignored, ignore_label)
        for index, values in enumerate(classes):
            table |= dict.fromkeys(values, index)
        return cls(key, tuple(sorted(table.items())), ignore_label, **settings)

    def class_indices(self, values: np.ndarray, path: str) -> np.ndarray:
        """Turn the values of a label file into class indices.

        Args:
            values: (H, W) integers, or uint8 RGB (H, W, 3) where `are_colors`.
            path: the file, for the message.

        Returns:
            (H, W) unsigned integers, of 8 bits where these are enough.

        Raises:
            UserError: naming the file and a value that is not in the table.
        """
        if self.are_colors:
            values = color_codes(values)
        known, indices = np.array(self.table, dtype=np.int64).T
        places = np.searchsorted(known, values).clip(max=len(known) - 1)
        is_known = known[places] == values
        if not (self.ignores_others or is_known.all()):
            raise UserError(
                f"label {path} has the {self._named(values[~is_known][0])}, to which {self.key} "
                'gives no class; correct it, or set LABEL_OTHERS to "ignore"'
            )
        dtype = np.min_scalar_type(max(self.ignore_label, indices.max()))
        return np.where(is_known, indices.astype(dtype)[places], dtype.type(self.ignore_label))

    def _named(self, value: int) -> str:
        if not self.are_colors:
            return f"value {value}"
        return f"color {[int(value) >> 16, int(value) >> 8 & 255, int(value) & 255]}"


class LabelFile(str):
    """The path of a label map with what its values stand for; `read_label` applies that."""

    values: LabelValues

    def __new__(cls, path: str, values: LabelValues) -> LabelFile:
        """Attach `values` to a path."""
        made = super().__new__(cls, path)
        made.values = values
        return made

    def __getnewargs__(self) -> tuple[str, LabelValues]:
        return str(self), self.values


def color_codes(colors: np.ndarray) -> np.ndarray:
    """Turn RGB colors (..., 3) of 8 bits into one integer each: R * 65536 + G * 256 + B."""
    red, green, blue = np.moveaxis(np.asarray(colors).astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue
