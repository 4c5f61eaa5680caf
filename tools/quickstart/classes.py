"""The classes of a miniature, read from its lists in datasets/."""

from __future__ import annotations

from dataclasses import dataclass

from cat_seg.data.vocabularies import load_vocabulary, shipped_path
from tools.quickstart.drawing import GROUNDS


@dataclass(frozen=True)
class Classes:
    """Class names in label order, and their division into groups.

    Attributes:
        names: all class names; label values are indices into it.
        grounds: indices of the grounds, all of which are seen.
        seen_shapes: indices of the shapes used to train segmentation.
        unseen_shapes: indices of the shapes that appear only in CLIP's pretraining captions.
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
        """Names of the classes that segmentation training never sees."""
        return tuple(self.names[i] for i in self.unseen_shapes)


def load_classes(vocabulary: str = "quickstart") -> Classes:
    """Read a shipped list of all classes, with the seen classes first, and its list of these."""
    names = load_vocabulary(shipped_path(vocabulary))
    seen = len(load_vocabulary(shipped_path(f"{vocabulary}_seen")))
    shapes = [i for i, name in enumerate(names) if name not in GROUNDS]
    return Classes(
        names=tuple(names),
        grounds=tuple(i for i, name in enumerate(names) if name in GROUNDS),
        seen_shapes=tuple(i for i in shapes if i < seen),
        unseen_shapes=tuple(i for i in shapes if i >= seen),
    )
