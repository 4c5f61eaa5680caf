"""Evaluation of trained weights."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from cat_seg.checkpoint.checkpointer import Checkpointer, agreed_checkpoint
from cat_seg.engine.trainer import Trainer
from cat_seg.errors import UserError
from cat_seg.evaluation import build_evaluator, check_test_datasets, skipped_images, weights_record
from cat_seg.modeling.segmentor import Segmentor


def evaluate(cfg: CfgNode, resume: bool = False) -> dict[str, Any]:
    """Build the model, load its weights, and evaluate it on DATASETS.TEST.

    Args:
        cfg: the complete config.
        resume: use the last checkpoint in OUTPUT_DIR, if there is one, instead of MODEL.WEIGHTS.

    Returns:
        The results of `Trainer.test`; only rank 0 has them.

    Raises:
        UserError: there is no dataset, a dataset cannot be used, there are no weights, or they do
            not load. On rank 0, after all datasets are done, also if images were skipped.
    """
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; name the datasets to evaluate on")
    check_test_datasets(cfg)
    last = agreed_checkpoint(cfg.OUTPUT_DIR) if resume else None
    weights = cfg.MODEL.WEIGHTS if last is None else str(last)
    check_weights(cfg, weights, resume)
    model = load_model(cfg, weights)
    record = shared_weights_record(weights)
    evaluators = [build_evaluator(cfg, name, record) for name in cfg.DATASETS.TEST]
    results = Trainer.test(cfg, model, evaluators)
    if comm.is_main_process():
        verify_results(cfg, results)
        if skipped := skipped_images(dict(zip(cfg.DATASETS.TEST, evaluators, strict=True))):
            raise UserError(f"{skipped}; the metrics cover only the other images")
    return results


def check_weights(cfg: CfgNode, weights: str, resume: bool) -> None:
    """Refuse to evaluate a model that was never trained, unless TEST.ALLOW_UNTRAINED is set.

    Args:
        cfg: reads TEST.ALLOW_UNTRAINED and OUTPUT_DIR.
        weights: the file to load, or "" for none.
        resume: whether OUTPUT_DIR was searched for a checkpoint.

    Raises:
        UserError: there are no weights.
    """
    if weights or cfg.TEST.ALLOW_UNTRAINED:
        return
    nothing = f", and {cfg.OUTPUT_DIR} has no checkpoint to resume from" if resume else ""
    raise UserError(
        f"MODEL.WEIGHTS is empty{nothing}; add MODEL.WEIGHTS FILE to evaluate a checkpoint, or "
        "TEST.ALLOW_UNTRAINED True to evaluate CLIP with an untrained head"
    )


def load_model(cfg: CfgNode, weights: str) -> Segmentor:
    """Build the model and load the file `weights`; "" keeps the initial weights.

    Raises:
        UserError: the model cannot be built from the config, or the weights do not load.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = weights
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, averaged=cfg.MODEL.WEIGHTS_EMA)
    checkpointer.load(weights, checkpointables=[])
    return model


def shared_weights_record(weights: str) -> dict[str, Any]:
    """Return `weights_record(weights)` in every process; only rank 0 reads the file.

    Without weights, return {"untrained": True}, which then appears in the results.
    """
    if not weights:
        return {"untrained": True}
    return comm.all_gather(weights_record(weights) if comm.is_main_process() else None)[0]
