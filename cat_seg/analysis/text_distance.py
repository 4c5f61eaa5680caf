"""How far class names are from those of training, in the text space of CLIP before fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from cat_seg.analysis.matrix_figure import short_name
from cat_seg.cat_seg_model import CATSeg
from cat_seg.data.class_names import first_synonym
from cat_seg.errors import UserError
from cat_seg.modeling.clip import CLIP
from cat_seg.modeling.clip.adapters import Adapter, FineTuning
from cat_seg.modeling.clip.loading import clip as build_clip
from cat_seg.visualization.palette import LINE_COLORS

SEEN_COLOR, UNSEEN_COLOR = LINE_COLORS[2], LINE_COLORS[1]
LEAST_CLASSES = 3  # for a rank correlation


class ClassDistance(NamedTuple):
    """A class of a benchmark.

    Attributes:
        name: its name.
        seen: whether training has the same first synonym.
        distance: 1 - cosine to the nearest training name.
        nearest: that name.
        iou: in percent.
    """

    name: str
    seen: bool
    distance: float
    nearest: str
    iou: float


@contextmanager
def before_training(cfg: CfgNode, model: CATSeg) -> Iterator[str]:
    """Give `model` the CLIP that its training started from, within the context.

    Args:
        cfg: config of the model; CLIP_WEIGHTS is read if the training changed CLIP's own weights.
        model: a trained model.

    Yields:
        Where that CLIP comes from.

    Raises:
        UserError: the encoder is not CLIP, or CLIP_WEIGHTS is needed and cannot be read.
    """
    head, trained = cfg.MODEL.SEM_SEG_HEAD, model.sem_seg_head.encoder
    if not isinstance(trained, CLIP):
        raise UserError(f"MODEL.SEM_SEG_HEAD.ENCODER is {head.ENCODER!r}, which is not CLIP")
    tuning = FineTuning.from_name(head.CLIP_FINETUNE)
    if not tuning.text and not tuning.image:
        start = CLIP(trained.text, trained.image, Adapter(), trained.prompts)
        source = "the checkpoint's CLIP without its adapter"
    else:
        if head.CLIP_WEIGHTS == "random":
            raise UserError(
                "training changed CLIP's own weights, and MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS is "
                "'random', so its start is not known"
            )
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.SEM_SEG_HEAD.CLIP_FINETUNE = "frozen"
        start = build_clip(cfg).to(model.device)
        source = f"CLIP_WEIGHTS {head.CLIP_WEIGHTS}"
    model.sem_seg_head.clip = start.eval()
    try:
        yield source
    finally:
        model.sem_seg_head.clip = trained


@torch.no_grad()
def class_distances(
    encoder: CLIP, training: Sequence[str], iou: Mapping[str, float]
) -> list[ClassDistance]:
    """Return the classes of a benchmark by increasing distance to the training names.

    Args:
        encoder: encodes names; with several templates, their mean counts.
        training: class names of training.
        iou: IoU in percent by class name.
    """
    own, others = ({n: first_synonym(n) for n in names} for names in (iou, training))
    features = [
        F.normalize(encoder.encode_text(list(names)).float().mean(dim=1), dim=-1)
        for names in (own.values(), others.values())
    ]
    cosine = features[0] @ features[1].T
    highest, nearest = cosine.max(dim=1)
    trained = set(others.values())
    found = [
        ClassDistance(name, own[name] in trained, max(0.0, 1 - high), training[index], iou[name])
        for name, high, index in zip(own, highest.tolist(), nearest.tolist(), strict=True)
    ]
    return sorted(found, key=lambda one: one.distance)


def rank_correlation(classes: Sequence[ClassDistance]) -> float | None:
    """Return Spearman's correlation of distance and IoU; None if it is not defined."""
    distances, ious = ([getattr(one, key) for one in classes] for key in ("distance", "iou"))
    if len(classes) < LEAST_CLASSES or len(set(distances)) < 2 or len(set(ious)) < 2:
        return None
    return float(spearmanr(distances, ious).statistic)


def draw_distances(classes: Sequence[ClassDistance], title: str = "") -> Figure:
    """Draw IoU over distance, a dot for each class, with as many names as have room.

    Args:
        classes: at least one; names of unseen classes are placed first.
        title: title of the figure.
    """
    figure = Figure(figsize=(9.6, 6.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for seen, color in ((True, SEEN_COLOR), (False, UNSEEN_COLOR)):
        group = [one for one in classes if one.seen == seen]
        if group:
            label = f"{'seen' if seen else 'unseen'} ({len(group)})"
            values = [one.distance for one in group], [one.iou for one in group]
            axes.scatter(*values, s=22, color=color, alpha=0.75, linewidths=0, label=label)
    axes.set(xlabel="1 - cosine to the nearest training name", ylabel="IoU (%)", ylim=(-3, 103))
    axes.margins(x=0.12)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.set_title(title, loc="left", fontsize="medium", parse_math=False)
    figure.canvas.draw()  # places the axes, which decides what has room
    figure.set_layout_engine("none")
    _write_names(axes, sorted(classes, key=lambda one: (one.seen, one.iou)))
    return figure


def _write_names(axes: Axes, classes: Sequence[ClassDistance]) -> None:
    """Write the names to the right or left of their dots where they overlap nothing written."""
    taken = np.empty((0, 4))
    for one in classes:
        for side, shift in (("left", 4), ("right", -4)):
            text = axes.annotate(
                short_name(one.name),
                (one.distance, one.iou),
                xytext=(shift, 3),
                textcoords="offset points",
                ha=side,
                fontsize=7.5,
                color=SEEN_COLOR if one.seen else UNSEEN_COLOR,
                parse_math=False,
            )
            box = text.get_window_extent()
            x0, y0, x1, y1 = taken.T
            apart = (box.x1 < x0) | (box.x0 > x1) | (box.y1 < y0) | (box.y0 > y1)
            if apart.all() and axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1:
                taken = np.vstack([taken, box.extents])
                break
            text.remove()
