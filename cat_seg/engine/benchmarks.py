"""Evaluation of one set of weights on several benchmarks, summarized in one table."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from tabulate import tabulate

from cat_seg.data import LABELS, is_on_disk
from cat_seg.engine import Trainer, check_weights, load_model, setup, shared_weights_record
from cat_seg.errors import UserError
from cat_seg.evaluation.record import finished_results, incompleteness, results_file, run_record
from cat_seg.evaluation.results.columns import VIEWS
from cat_seg.evaluation.run import (
    ProcessOnly,
    build_evaluator,
    run_on_dataset,
    skipped_images,
)
from cat_seg.evaluation.sem_seg import SemSegEvaluator
from cat_seg.modeling.segmentor import Segmentor
from cat_seg.utils.agreement import raise_on_every_rank

METRICS = ("mIoU", "mACC", "pACC")
MARK = "*"  # marks a figure that does not cover the whole dataset
MESS = VIEWS["mess"]
DOMAIN_METRICS = (MESS.metric, "mIoU")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The results of one dataset, or why there are none.

    Attributes:
        results: the content of the results file.
        word: "missing" or "failed" if there are no results.
        reason: why there are no results; with results, which images were skipped and why.
    """

    results: dict[str, Any] | None = None
    word: str = ""
    reason: str = ""

    def cells(self) -> list[str]:
        """Return the cells of the table row, without the label."""
        if self.results is None:
            return [self.word, *["-"] * (len(METRICS) + 1)]
        short = incompleteness(self.results)
        mark = "" if short is None else MARK
        values = (self.results["sem_seg"][metric] for metric in METRICS)
        cells = ["-" if value is None else f"{value:.2f}{mark}" for value in values]
        return [*cells, str(self.results["counts"]["images"]), f"{self.results['seconds']:.1f}"]


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Format the outcomes, given by dataset, as a table with metrics in percent."""
    return tabulate(
        [[LABELS.get(dataset, dataset), *found.cells()] for dataset, found in outcomes.items()],
        ["Benchmark", *METRICS, "images", "seconds"],
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", *["right"] * (len(METRICS) + 2)),
    )


def domain_table(outcomes: Mapping[str, Outcome]) -> str | None:
    """Format the means over the domains of MESS and over its 22 datasets, in percent.

    A mean needs all of its datasets.

    Returns:
        The table, or None if no dataset of MESS has results.
    """
    found = {LABELS.get(dataset, dataset): outcome.results for dataset, outcome in outcomes.items()}
    results = {label: content for label, content in found.items() if content is not None}
    if not any(label in results for column in MESS.columns for label in column.labels):
        return None
    rows = []
    for column in MESS.columns:
        used = [results[label] for label in column.labels if label in results]
        mark = MARK if any(map(incompleteness, used)) else ""
        cells = []
        for metric in DOMAIN_METRICS:
            values = {label: content["sem_seg"][metric] for label, content in results.items()}
            mean = column.value({k: value for k, value in values.items() if value is not None})
            cells.append("-" if mean is None else f"{mean:.2f}{mark}")
        complete = sum(all(label in results for label in labels) for labels in column.sources)
        rows.append([column.heading, *cells, f"{complete} of {len(column.sources)}"])
    return tabulate(
        rows,
        ["MESS", *DOMAIN_METRICS, "datasets"],
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", "right", "right", "right"),
    )


def footnotes(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Say how many images each marked figure covers."""
    return [
        f"{MARK} {LABELS.get(dataset, dataset)}: {short}"
        for dataset, found in outcomes.items()
        if found.results is not None and (short := incompleteness(found.results))
    ]


def reasons(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Explain each outcome that has no results or skipped images."""
    return [
        f"{LABELS.get(dataset, dataset)} {found.word or 'incomplete'}: {found.reason}"
        for dataset, found in outcomes.items()
        if found.reason
    ]


def survey(cfg: CfgNode, dataset: str, weights: Mapping[str, Any] | None) -> Outcome | None:
    """Return the outcome of a dataset if it is known without evaluating, else None."""
    try:
        images = [record["file_name"] for record in DatasetCatalog.get(dataset)]
        record = run_record(cfg, dataset, weights)
    except (UserError, OSError) as error:
        return Outcome(word="failed" if is_on_disk(dataset) else "missing", reason=str(error))
    results = finished_results(results_file(cfg.OUTPUT_DIR, dataset), record, images)
    if results is None:
        return None
    logger.info("%s was already evaluated with these weights and settings; keeping it", dataset)
    return Outcome(results)


def evaluate_one(
    cfg: CfgNode, model: Segmentor, dataset: str, weights: Mapping[str, Any] | None
) -> Outcome:
    """Evaluate on one dataset in all processes; an error in any of them becomes the outcome."""

    def process() -> SemSegEvaluator:
        evaluator = build_evaluator(cfg, dataset, weights)
        run_on_dataset(cfg, model, dataset, loader, ProcessOnly(evaluator))
        return evaluator

    try:
        loader = Trainer.build_test_loader(cfg, dataset)
        evaluator = raise_on_every_rank(process)
        # `evaluate` synchronizes the ranks, but only the writing that follows on rank 0 can fail.
        raise_on_every_rank(evaluator.evaluate)
    except UserError as error:
        logger.error("%s failed: %s", dataset, error)
        return Outcome(word="failed", reason=str(error))
    if not comm.is_main_process():
        return Outcome()
    content = json.loads(results_file(cfg.OUTPUT_DIR, dataset).read_text(encoding="utf-8"))
    return Outcome(content, reason=skipped_images({dataset: evaluator}) or "")


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Evaluate in this process; rank 0 prints the table.

    Raises:
        UserError: there are no weights. On rank 0 also if datasets failed, skipped images, or were
            requested but are missing; the message names them.
    """
    cfg = setup(cfg, args)
    check_weights(cfg, cfg.MODEL.WEIGHTS, args.resume)
    weights = shared_weights_record(cfg.MODEL.WEIGHTS)
    found = {name: survey(cfg, name, weights) for name in args.datasets}
    outcomes = comm.all_gather(found)[0]  # the files are rank 0's
    todo = [dataset for dataset, outcome in outcomes.items() if outcome is None]
    if todo:
        model = load_model(cfg, cfg.MODEL.WEIGHTS)
    for number, dataset in enumerate(todo, 1):
        logger.info("Evaluating %s (%d of %d)", dataset, number, len(todo))
        outcomes[dataset] = evaluate_one(cfg, model, dataset, weights)
    unmet = {
        dataset: outcome
        for dataset, outcome in outcomes.items()
        if outcome.reason and (outcome.word != "missing" or dataset in args.required)
    }
    if not comm.is_main_process():
        return
    print(table(outcomes))
    if (domains := domain_table(outcomes)) is not None:
        print(f"\n{domains}")
    for line in footnotes(outcomes):
        print(line)
    for line in reasons({d: o for d, o in outcomes.items() if d not in unmet}):
        print(line)
    if unmet:
        raise UserError("; ".join(reasons(unmet)))
