"""Process measured from its start to its first result; run by tools.benchmarking.start."""

from __future__ import annotations

import json
import sys
import time

import torch

from cat_seg.checkpoint import Checkpointer
from cat_seg.configuration.precision import set_float32_precision
from cat_seg.engine import load_config
from cat_seg.engine.model import build_model
from tools.benchmarking.memory import resident


def main(config: str, height: str, width: str, started: str) -> None:
    """Print the seconds of every phase and the peak resident memory as JSON.

    Args:
        config: a config file with MODEL.WEIGHTS.
        height, width: size of the image in pixels.
        started: time.time() just before the process was started.
    """
    stamps = {"": float(started), "import": time.time()}
    cfg = load_config(config)
    set_float32_precision(cfg)
    model = build_model(cfg).eval()
    stamps["build"] = time.time()
    Checkpointer(model).load(cfg.MODEL.WEIGHTS)
    stamps["load"] = time.time()
    with torch.no_grad():
        clip = model.sem_seg_head.clip
        clip.encode_text(model.vocabulary)
        stamps["encode classes"] = time.time()
        (answer,) = model([{"image": torch.zeros(3, int(height), int(width), dtype=torch.uint8)}])
        answer["sem_seg"].argmax(dim=0).cpu()
    stamps["image"] = time.time()
    names, times = list(stamps), list(stamps.values())
    phases = {name: times[i + 1] - times[i] for i, name in enumerate(names[1:])}
    print(json.dumps({"phases": phases, "peak": resident("VmHWM")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
