"""The quickstart's classes, as datasets/quickstart*.json list them."""

from __future__ import annotations

from dataclasses import dataclass

from cat_seg.data.vocabularies import load_vocabulary, shipped_path
from tools.quickstart.drawing import GROUNDS


@dataclass(frozen=True)
class Classes:
    """Class names in label order, and which of them are what.

    Attributes:
        names: all classes; label values are indices into it.
        grounds: indices of the grounds, all of them seen.
        seen_shapes: indices of the shapes that the segmentation is trained on.
        unseen_shapes: indices of those that only CLIP's captions name.
    """

    names: tuple[str, ...]
    grounds: tuple[int, ...]
    seen_shapes: tuple[int, ...]
    unseen_shapes: tuple[int, ...]

    @property
    def seen(self) -> tuple[str, ...]:
        """Names of the classes trained on."""
        return tuple(self.names[i] for i in sorted(self.grounds + self.seen_shapes))

    @property
    def unseen(self) -> tuple[str, ...]:
        """Names of the classes that training never meets."""
        return tuple(self.names[i] for i in self.unseen_shapes)


def load_classes() -> Classes:
    """Read the shipped lists; the seen classes are the first of all classes."""
    names = load_vocabulary(shipped_path("quickstart"))
    seen = len(load_vocabulary(shipped_path("quickstart_seen")))
    shapes = [i for i, name in enumerate(names) if name not in GROUNDS]
    return Classes(
        names=tuple(names),
        grounds=tuple(i for i, name in enumerate(names) if name in GROUNDS),
        seen_shapes=tuple(i for i in shapes if i < seen),
        unseen_shapes=tuple(i for i in shapes if i >= seen),
    )
