"""What a resumed run takes from its checkpoint's config, and what from the one it is given."""

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

# They are in the optimizer's state, or the random numbers began with them.
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
# They say where a run is, not what it is.
PLACES = ("MODEL.DEVICE", "MODEL.WEIGHTS", "OUTPUT_DIR", "VERSION")


def run_config(cfg: CfgNode) -> dict[str, Any]:
    """Return what a checkpoint keeps of a config: values by dotted key, in plain types."""
    return {
        key: _plain(value)
        for key, value in leaves(cfg)
        if key not in PLACES and not is_published(key)
    }


def saved_config(checkpoint: Path) -> dict[str, Any]:
    """Return the `run_config` in a checkpoint; empty for one that has none, or is damaged."""
    try:
        trainer = read_file(checkpoint).get("trainer")
    except UserError:  # which loading the checkpoint will raise again
        return {}
    saved = trainer.get("config") if isinstance(trainer, dict) else None
    return saved if isinstance(saved, dict) else {}


@dataclass(frozen=True)
class Resumed:
    """A config to resume with.

    cfg: the config that the run really has.
    kept, new: one line each for the keys that stay what they were and for those that change; ""
        where there are none.
    """

    cfg: CfgNode
    kept: str
    new: str


def resumed_config(cfg: CfgNode, saved: dict[str, Any]) -> Resumed:
    """Settle what a resumed run has: keys of KEPT stay, all others are what `cfg` says.

    Args:
        cfg: of the command that resumes; it stays as it is.
        saved: of `saved_config`.
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
        f"The resumed run keeps what it began with: {', '.join(kept)}" if kept else "",
        f"The resumed run goes on with: {', '.join(new)}" if new else "",
    )


def _plain(value: Any) -> Any:
    """Lists for tuples, which YAML does not tell apart."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return {} if isinstance(value, CfgNode) else value
