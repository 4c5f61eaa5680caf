"""Evaluation of a model on a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset

from cat_seg.evaluation.record import results_file, run_record
from cat_seg.evaluation.sem_seg import NAMED, SemSegEvaluator
from cat_seg.evaluation.tta import SemanticSegmentorWithTTA
from cat_seg.evaluation.vocabulary import using_vocabulary, vocabulary_of
from cat_seg.modeling.reduction import Argmax
from cat_seg.modeling.segmentor import Segmentor


def build_evaluator(cfg: CfgNode, name: str, weights: Mapping[str, Any] | None) -> SemSegEvaluator:
    """Return the evaluator that writes OUTPUT_DIR/inference/<name>/results.json.

    Args:
        cfg: the full config; with TEST.SAVE_PREDICTIONS, the predictions are written too.
        name: a registered dataset.
        weights: from `weights_record`; None for a model that is not in a file.

    Raises:
        UserError: the dataset is missing, or TEST_CLASS_JSON does not match it.
    """
    return SemSegEvaluator(
        name,
        results_file(cfg.OUTPUT_DIR, name),
        record=run_record(cfg, name, weights),
        save_predictions=cfg.TEST.SAVE_PREDICTIONS,
        ignore_orientation=cfg.INPUT.IGNORE_EXIF_ORIENTATION,
    )


def run_on_dataset(
    cfg: CfgNode, model: Segmentor, name: str, loader: Iterable, evaluator: DatasetEvaluator
) -> dict[str, Any]:
    """Evaluate on a dataset with its own classes, or with those of TEST_CLASS_JSON; logs an ETA.

    Args:
        cfg: reads TEST.AUG.* and MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON.
        model: not wrapped in DDP; its vocabulary is restored afterwards.
        name: the registered dataset that `loader` loads.
        loader: must have a length.
        evaluator: processes every batch and its outputs; then its `evaluate` is called.

    Returns:
        What the evaluator's `evaluate` returns; {} instead of None.

    Raises:
        UserError: TEST_CLASS_JSON does not match the dataset.
    """
    if cfg.TEST.AUG.ENABLED:
        model = SemanticSegmentorWithTTA(cfg, model)
    with using_vocabulary(model, vocabulary_of(cfg, name)):
        return inference_on_dataset(partial(_answers, model), loader, evaluator)


def _answers(model: Segmentor, batch: Sequence[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """Return the predicted labels of a batch, with None for unreadable samples."""
    readable = [sample for sample in batch if "unreadable" not in sample]
    answers = iter(model.segment(readable, Argmax) if readable else ())
    return [
        None if "unreadable" in sample else {"labels": next(answers).labels} for sample in batch
    ]


def skipped_images(evaluators: Mapping[str, SemSegEvaluator]) -> str | None:
    """Return one line naming the images that were skipped, by dataset, or None if there are none.

    Args:
        evaluators: by dataset name, on rank 0 after `evaluate`.
    """
    lines = []
    for name, evaluator in evaluators.items():
        if skipped := evaluator.skipped:
            more = f"; and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
            count = f"{len(skipped)} image{'s' * (len(skipped) > 1)}"
            lines.append(f"{name}: {count} skipped: {'; '.join(skipped[:NAMED])}{more}")
    return "; ".join(lines) or None


class ProcessOnly(DatasetEvaluator):
    """The per-process part of an evaluator; the caller has to call `evaluate` itself.

    This lets all processes check that none has failed before `evaluate` waits for their counts.
    """

    def __init__(self, evaluator: DatasetEvaluator) -> None:
        """Forward `reset` and `process` to `evaluator`."""
        self.reset = evaluator.reset
        self.process = evaluator.process
