"""The sections of an analysis: each makes pictures and numbers of one side of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cat_seg.analysis import curves_figure as curves
from cat_seg.analysis.confusions import draw_confusion, most_confused, row_shares
from cat_seg.analysis.hyperspherical import prototype_angles
from cat_seg.analysis.matrix_figure import Axis, draw_matrix
from cat_seg.analysis.radius import mean_and_spread, measure, read_trajectories
from cat_seg.analysis.radius_figure import draw_radii
from cat_seg.analysis.radius_hook import vocabularies
from cat_seg.analysis.rectification_figure import draw_rectifications, rectify
from cat_seg.analysis.text_distance import (
    before_training,
    class_distances,
    draw_distances,
    rank_correlation,
)
from cat_seg.cli.analysing.run import Run
from cat_seg.cli.radius import content
from cat_seg.engine.trainer import METRICS
from cat_seg.errors import UserError
from cat_seg.evaluation.confusion import semantic_metrics
from cat_seg.evaluation.confusion_file import Confusion, confusion_file, read_confusion

KEY = "SOLVER.DIAGNOSTICS_PERIOD"
CLOSEST = 10  # pairs of prototypes in the table
BEFORE, AFTER = "before", "fine-tuned"


@dataclass
class Table:
    """A table: a title, the heads of its columns, and rows of texts."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Section:
    """What an analysis shows under one heading.

    Attributes:
        numbers: JSON values, the numbers behind the pictures.
        pictures: by file name without suffix.
        notes: lines of text, also printed.
        tables: further numbers to read.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Figure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def gradients(run: Run) -> Section:
    """Draw gradients by loss and part, their cosines, and updates, over training."""
    found = curves.curves_of(run.metrics, ("gradient/", "update/"))
    if not found:
        raise UserError(f"{METRICS} has no gradients; train with {KEY}")
    section = Section(found)
    norms = curves.gradient_panels(found)
    losses = [label for panel in norms for label in panel.lines]
    cosines = "cosine to the gradient of the segmentation loss, by part"
    for name, panels, title, first in (
        ("gradient_norms", norms, "gradient norms by part", losses),
        ("gradient_cosines", curves.cosine_panels(found), cosines, losses),
        ("updates", curves.update_panels(found), "", ()),
    ):
        if panels:
            section.pictures[name] = curves.draw_curves(panels, title, first)
    return section


def prototypes(run: Run) -> Section:
    """Draw HPA's prototypes: over training, and the final angles between them."""
    hpa = getattr(run.model, "hpa", None)
    if hpa is None:
        raise UserError("the model has no HPA")
    section = Section()
    over_training = curves.curves_of(run.metrics, ("hpa/",))
    if over_training:
        section.numbers["training"] = over_training
        panels = curves.prototype_panels(over_training)
        section.pictures["prototypes_training"] = curves.draw_curves(panels)
    else:
        section.notes.append(f"no curves over training: {METRICS} has none; train with {KEY}")
    tensor, classes = prototype_angles(hpa)
    angles, names = tensor.cpu().numpy(), [run.train_classes[index] for index in classes.tolist()]
    if len(names) < 2:
        raise UserError("HPA has fewer than two prototypes")
    section.numbers["final"] = {"classes": names, "angles": np.round(angles, 4).tolist()}
    texts = Axis("", "", "angle (degrees)")
    title = "angles between prototypes"
    apart = np.where(np.eye(len(names), dtype=bool), np.nan, angles)
    section.pictures["prototype_angles"] = draw_matrix(apart, names, texts, title=title)
    pairs = np.triu_indices(len(names), 1)
    order = np.argsort(angles[pairs], kind="stable")[:CLOSEST]
    rows = [
        (names[pairs[0][i]], names[pairs[1][i]], f"{angles[pairs][i]:.2f}") for i in order.tolist()
    ]
    section.tables.append(Table("closest prototypes", ("class", "class", "degrees"), rows))
    mean = float(angles[pairs].mean())
    section.notes.append(f"{len(names)} prototypes, {mean:.1f} degrees apart on average")
    return section


def rectification(run: Run) -> Section:
    """Draw AFR's gates over training, and over images."""
    model: Any = run.model
    if getattr(model, "afr", None) is None:
        raise UserError("the model has no AFR")
    rows = [rectify(model, name, image) for name, image in run.images.items()]
    section = Section(
        {
            "images": {
                row.name: {
                    "uncertainty": row.uncertainty,
                    "mix": row.mix,
                    "turn": row.turn,
                    "channel_gate": float(row.channel.mean()),
                    "spatial_gate": np.round(row.spatial, 5).tolist(),
                    "change": np.round(row.change, 5).tolist(),
                }
                for row in rows
            }
        }
    )
    section.pictures["rectification"] = draw_rectifications(rows)
    over_training = curves.curves_of(run.metrics, ("afr/",))
    if over_training:
        section.numbers["training"] = over_training
        panels = curves.rectification_panels(over_training)
        section.pictures["rectification_training"] = curves.draw_curves(panels)
    else:
        section.notes.append(f"no curves over training: {METRICS} has none; train with {KEY}")
    return section


def confusion(run: Run) -> Section:
    """Draw the confusion matrix of each dataset, and list the most confused pairs."""
    return _of_datasets(run, _confusion)


def text_distance(run: Run) -> Section:
    """Draw IoU over the distance of the names to those of training."""
    with before_training(run.cfg, run.model) as source:
        section = _of_datasets(run, _text_distance)
    section.notes.insert(0, f"text features of {source}")
    section.numbers["text_features"] = source
    return section


def radius(run: Run) -> Section:
    """Draw the hyperbolic radius of text and image embeddings, as `hps-seg radius` does."""
    names, section = vocabularies(run.cfg), Section()
    try:
        images = list(run.images.values())
    except UserError as error:
        section.notes.append(f"without images: {error}")
        images = []
    radii = {}
    try:
        with before_training(run.cfg, run.model):
            radii[BEFORE] = measure(run.model, names, images)
    except UserError as error:
        section.notes.append(f"without the model before training: {error}")
    radii[AFTER] = measure(run.model, names, images)
    runs = {}
    if curves.curves_of(run.metrics, ("radius/",)):
        runs[AFTER] = read_trajectories(run.folder / METRICS)
    section.numbers = content(radii, runs, names)
    section.pictures["radius"] = draw_radii(radii, runs)
    for title, measured in radii.items():
        means = ", ".join(f"{key} {mean_and_spread(one)[0]:.2f}" for key, one in measured.items())
        section.notes.append(f"mean radius {title}: {means}")
    return section


SECTIONS: Mapping[str, tuple[str, Callable[[Run], Section]]] = {
    "gradients": ("Gradients and updates", gradients),
    "prototypes": ("Prototypes (HPA)", prototypes),
    "rectification": ("Feature rectification (AFR)", rectification),
    "confusion": ("Confusion of classes", confusion),
    "text_distance": ("IoU and distance to the training names", text_distance),
    "radius": ("Hyperbolic radius", radius),
}


def _of_datasets(run: Run, part: Callable[[Run, str, Section], None]) -> Section:
    """Make a section of all datasets with results.

    Raises:
        UserError: there are none, or each one fails; the message is that of the first.
    """
    section, problems = Section(), []
    for dataset in run.results:
        try:
            part(run, dataset, section)
        except UserError as error:
            problems.append(error)
            section.notes.append(f"without {dataset}: {error}")
    if not section.pictures:
        raise problems[0] if problems else UserError("the run has no results; evaluate it")
    return section


def _confusion(run: Run, dataset: str, section: Section) -> None:
    found = _confusion_of(run, dataset)
    seen = run.seen(found.names)
    section.pictures[f"confusion_{_stem(dataset)}"] = draw_confusion(found, seen, dataset)
    pairs = most_confused(found)
    shares = row_shares(found)
    section.numbers[dataset] = {
        "classes": found.names,
        "shares": [[None if np.isnan(v) else round(v, 5) for v in row] for row in shares.tolist()],
        "most_confused": [pair._asdict() for pair in pairs],
    }
    rows = [(p.label, p.predicted, f"{p.share:.1%}", f"{p.pixels:,}") for p in pairs]
    heads = ("label", "prediction", "of the label's pixels", "pixels")
    section.tables.append(Table(f"most confused, {dataset}", heads, rows))


def _confusion_of(run: Run, dataset: str) -> Confusion:
    result = run.results[dataset]
    file = confusion_file(result.file)
    try:
        found = read_confusion(result.file)
    except FileNotFoundError:
        raise UserError(f"{file} is missing; evaluate again with this version") from None
    own = semantic_metrics(found.counts, found.names)["mIoU"]
    if result.miou is None:
        raise UserError(f"{result.file} counts no labeled pixel")
    if not np.isclose(own, result.miou):
        raise UserError(f"{file} is of another evaluation than results.json; evaluate again")
    return found


def _text_distance(run: Run, dataset: str, section: Section) -> None:
    encoder: Any = run.model.sem_seg_head.encoder
    iou = run.results[dataset].iou
    if not iou:
        raise UserError(f"{run.results[dataset].file} has no IoU of a class")
    classes = class_distances(encoder, run.train_classes, iou)
    unseen = [one for one in classes if not one.seen]
    correlations = {"all": rank_correlation(classes), "unseen": rank_correlation(unseen)}
    section.numbers[dataset] = {
        "rank_correlation": correlations,
        "classes": [one._asdict() for one in classes],
    }
    section.pictures[f"text_distance_{_stem(dataset)}"] = draw_distances(classes, dataset)
    texts = [
        f"{value:.2f} over {count} {'unseen ' * (which == 'unseen')}classes"
        for (which, value), count in zip(
            correlations.items(), (len(classes), len(unseen)), strict=True
        )
        if value is not None
    ]
    text = "; ".join(texts) or "not defined"
    section.notes.append(f"{dataset}: rank correlation of distance and IoU {text}")
    rows = [(c.name, f"{c.distance:.3f}", c.nearest, f"{c.iou:.1f}") for c in unseen]
    heads = ("class", "distance", "nearest training name", "IoU (%)")
    section.tables.append(Table(f"unseen classes, {dataset}", heads, rows))


def _stem(dataset: str) -> str:
    """Return a dataset's name as part of a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(dataset).name)
