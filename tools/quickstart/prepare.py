"""Draw the data and pre-train the CLIP of one seed, in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cat_seg.utils.files import atomic_write
from tools.quickstart.classes import load_classes
from tools.quickstart.dataset import DatasetSettings, write_dataset
from tools.quickstart.pretrain import PretrainSettings, pretrain
from tools.quickstart.training import Workplace


def command(
    place: Workplace,
    clip_config: Path,
    vocabulary: str,
    dataset: DatasetSettings,
    clip: PretrainSettings,
) -> list[str]:
    """Return the command that `Scripts.run` takes."""
    settings = json.dumps([asdict(dataset), asdict(clip)])
    return [
        *("-m", "tools.quickstart.prepare"),
        *(str(place.folder), str(place.seed), str(clip_config), vocabulary, settings),
    ]


def main(argv: Sequence[str]) -> None:
    """Write the scenes, clip.pt and clip.json, which has the accuracy of CLIP."""
    folder, seed, clip_config, vocabulary, settings = argv
    dataset, clip = json.loads(settings)
    place = Workplace(Path(folder), int(seed))
    classes = load_classes(vocabulary)
    write_dataset(place.dataset, classes, DatasetSettings(**dataset), place.seed)
    measured = pretrain(
        Path(clip_config), place.clip_weights, classes, PretrainSettings(**clip), place.seed
    )
    with atomic_write(place.folder / "clip.json", "w") as file:
        json.dump(measured, file)


if __name__ == "__main__":
    main(sys.argv[1:])
