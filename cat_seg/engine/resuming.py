"""The config of a resumed run: some keys come from its checkpoint, the others are new."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from cat_seg.checkpoint.reading import read_file
from cat_seg.configuration.checks import value_of
from cat_seg.configuration.loading import leaves
from cat_seg.configuration.published import is_published
from cat_seg.errors import UserError

# Keys that a run keeps: they are part of the optimizer's state, or seeded the random numbers.
KEPT = (
    "SEED",
    "SOLVER.BASE_LR",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.CLIP_MULTIPLIER",
    "SOLVER.MOMENTUM",
    "SOLVER.OPTIMIZER",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.WEIGHT_DECAY_BIAS",
    "SOLVER.WEIGHT_DECAY_EMBED",
    "SOLVER.WEIGHT_DECAY_NORM",
)
# Keys that say where a run takes place, not what it does.
PLACES = ("MODEL.DEVICE", "MODEL.WEIGHTS", "OUTPUT_DIR", "VERSION")


def run_config(cfg: CfgNode) -> dict[str, Any]:
    """Return the part of a config that a checkpoint stores: plain values by dotted key."""
    return {
        key: _plain(value)
        for key, value in leaves(cfg)
        if key not in PLACES and not is_published(key)
    }


def saved_config(checkpoint: Path) -> dict[str, Any]:
    """Return the `run_config` in a checkpoint; empty if it has none or is damaged."""
    try:
        trainer = read_file(checkpoint).get("trainer")
    except UserError:  # loading the checkpoint will raise it again
        return {}
    saved = trainer.get("config") if isinstance(trainer, dict) else None
    return saved if isinstance(saved, dict) else {}


@dataclass(frozen=True)
class Resumed:
    """The config of a resumed run.

    Attributes:
        cfg: the config that takes effect.
        kept: one line that lists the keys that keep their old values, or "".
        new: one line that lists the keys that take new values, or "".
    """

    cfg: CfgNode
    kept: str
    new: str


def resumed_config(cfg: CfgNode, saved: dict[str, Any]) -> Resumed:
    """Merge two configs for a resumed run: keys in KEPT from `saved`, all others from `cfg`.

    Args:
        cfg: the config of the resuming command; it is not modified.
        saved: the result of `saved_config`.
    """
    now = run_config(cfg)
    changed = {k: saved[k] for k in sorted(now.keys() & saved.keys()) if now[k] != saved[k]}
    kept = [f"{k} {old} (not {now[k]})" for k, old in changed.items() if k in KEPT]
    new = [f"{k} {now[k]} (was {old})" for k, old in changed.items() if k not in KEPT]
    cfg = cfg.clone()
    for key in changed.keys() & set(KEPT):
        section, _, name = key.rpartition(".")
        node = value_of(cfg, section) if section else cfg
        node[name] = changed[key]
    return Resumed(
        cfg,
        f"The resumed run keeps its original values: {', '.join(kept)}" if kept else "",
        f"The resumed run uses new values: {', '.join(new)}" if new else "",
    )


def _plain(value: Any) -> Any:
    """Turn tuples into lists, because YAML does not distinguish the two."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return {} if isinstance(value, CfgNode) else value
