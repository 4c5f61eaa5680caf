"""Running a model over a dataset, in one process or in several that agree on errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.utils import comm
from torch import nn

from cat_seg.errors import UserError, explain
from cat_seg.evaluation.record import results_file, run_record
from cat_seg.evaluation.sem_seg import NAMED, SemSegEvaluator
from cat_seg.evaluation.tta import SemanticSegmentorWithTTA
from cat_seg.evaluation.vocabulary import using_vocabulary, vocabulary_of

R = TypeVar("R")

logger = logging.getLogger(__name__)


def build_evaluator(cfg: CfgNode, name: str, weights: Mapping[str, Any] | None) -> SemSegEvaluator:
    """Return the evaluator that writes OUTPUT_DIR/inference/<name>/results.json.

    Args:
        cfg: the whole config; with TEST.SAVE_PREDICTIONS, the predictions are written too.
        name: a registered dataset.
        weights: of `weights_record`; None for a model that is in no file.

    Raises:
        UserError: the dataset is missing, or TEST_CLASS_JSON does not fit it.
    """
    return SemSegEvaluator(
        name,
        results_file(cfg.OUTPUT_DIR, name),
        record=run_record(cfg, name, weights),
        save_predictions=cfg.TEST.SAVE_PREDICTIONS,
        ignore_orientation=cfg.INPUT.IGNORE_EXIF_ORIENTATION,
    )


def run_on_dataset(
    cfg: CfgNode, model: nn.Module, name: str, loader: Iterable, evaluator: DatasetEvaluator
) -> dict[str, Any]:
    """Evaluate on a dataset with its own classes, or with TEST_CLASS_JSON's; logs an ETA.

    Args:
        cfg: reads TEST.AUG.* and MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON.
        model: with `set_vocabulary`, not wrapped in DDP; its vocabulary is put back afterwards.
        name: the registered dataset that `loader` loads.
        loader: has a length.
        evaluator: gets every batch and answer; afterwards its `evaluate` is called.

    Returns:
        What the evaluator's `evaluate` returns, {} for None.

    Raises:
        UserError: TEST_CLASS_JSON does not fit the dataset.
    """
    if cfg.TEST.AUG.ENABLED:
        model = SemanticSegmentorWithTTA(cfg, model)
    with using_vocabulary(model, vocabulary_of(cfg, name)):
        return inference_on_dataset(partial(_answers, model), loader, evaluator)


def _answers(model: nn.Module, batch: Sequence[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """The model's answers to a batch, None to the samples that are unreadable."""
    readable = [sample for sample in batch if "unreadable" not in sample]
    answers = iter(model(readable) if readable else ())
    return [None if "unreadable" in sample else next(answers) for sample in batch]


def skipped_images(evaluators: Mapping[str, SemSegEvaluator]) -> str | None:
    """Say in one line which images evaluators skipped, by dataset; None if they skipped none.

    Args:
        evaluators: by the name of the dataset, on rank 0 after `evaluate`.
    """
    lines = []
    for name, evaluator in evaluators.items():
        if skipped := evaluator.skipped:
            more = f"; and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
            count = f"{len(skipped)} image{'s' * (len(skipped) > 1)}"
            lines.append(f"{name}: {count} skipped: {'; '.join(skipped[:NAMED])}{more}")
    return "; ".join(lines) or None


class ProcessOnly(DatasetEvaluator):
    """The part of an evaluator that each process does alone; `evaluate` is left to the caller.

    Processes can then agree that all have come so far before any waits for the others' counts.
    """

    def __init__(self, evaluator: DatasetEvaluator) -> None:
        """Pass images on to `evaluator`."""
        self.reset = evaluator.reset
        self.process = evaluator.process


def raise_on_every_rank(work: Callable[[], R]) -> R:
    """Do `work` in every process and return its result, or raise in all what one met.

    Every process has to call it, and `work` must not wait for other processes. The traceback of an
    unexpected exception is logged.

    Raises:
        UserError: the first, by rank, that `work` raised in any process, or that explains an
            error that it raised; see `cat_seg.errors.explain`.
    """
    result = error = None
    try:
        result = work()
    except Exception as found:
        error = explain(found)
        if error is None:
            logger.exception("Unexpected error")
            error = " ".join(f"{type(found).__name__}: {found}".split())
    error = next(filter(None, comm.all_gather(error)), None)
    if error is not None:
        raise UserError(error)
    return result
