"""The parts of a run, and evaluation, as class methods that follow detectron2's conventions."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator, print_csv_format
from detectron2.utils import comm

from cat_seg.cat_seg_model import CATSeg
from cat_seg.data import build_test_loader, build_train_loader
from cat_seg.engine.compiling import compile_aggregator
from cat_seg.engine.loading import SignalProofLoader
from cat_seg.engine.model import build_model
from cat_seg.engine.optimizer import build_optimizer
from cat_seg.engine.schedule import build_lr_scheduler
from cat_seg.evaluation import build_evaluator, run_on_dataset
from cat_seg.modeling.segmentor import Segmentor

logger = logging.getLogger(__name__)


class Builders(DefaultTrainer):
    """The class methods of `cat_seg.engine.Trainer`, which can be called without a run.

    They replace those of detectron2's DefaultTrainer, which calls them by these names.
    """

    @classmethod
    def build_model(cls, cfg: CfgNode) -> CATSeg:
        """Build the model, compiled if configured, and log how many CLIP parameters are trained.

        See `cat_seg.engine.model.build_model`: MODEL.WEIGHTS has to be loaded afterwards.

        Raises:
            UserError: the model cannot be built from the config.
        """
        model = build_model(cfg)
        logger.info("Model:\n%s", model)
        if cfg.MODEL.COMPILE:
            compile_aggregator(model)
        parameters = list(model.clip_parameters())
        total = sum(p.numel() for p in parameters)
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        logger.info(
            "CLIP (%s): %s of %s parameters are trainable (%.2f%%)",
            cfg.MODEL.SEM_SEG_HEAD.CLIP_FINETUNE,
            f"{trained:,}",
            f"{total:,}",
            100 * trained / max(total, 1),
        )
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: CATSeg) -> torch.optim.Optimizer:
        """See `cat_seg.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """See `cat_seg.engine.schedule.build_lr_scheduler`."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, seed: int, start: int = 0) -> SignalProofLoader:
        """See `cat_seg.data.build_train_loader`."""
        return SignalProofLoader(build_train_loader(cfg, seed, start))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> SignalProofLoader:
        """See `cat_seg.data.build_test_loader`."""
        return SignalProofLoader(build_test_loader(cfg, dataset_name))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Return the evaluator for a model in training, whose weights are not in a file."""
        return build_evaluator(cfg, dataset_name, weights=None)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: Segmentor,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate on each dataset in DATASETS.TEST with its own or TEST_CLASS_JSON's classes.

        Args:
            cfg: with TEST.AUG.ENABLED, test-time augmentation is used.
            model: its vocabulary is restored afterwards.
            evaluators: one per dataset, instead of those from `build_evaluator`.

        Returns:
            The metrics if there is one dataset, otherwise a dict of metrics by dataset name.

        Raises:
            UserError: a dataset is missing or does not fit TEST_CLASS_JSON.
        """
        names = cfg.DATASETS.TEST
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in names]
        elif isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        model = getattr(model, "module", model)  # ranks evaluate independently, without DDP
        results: dict[str, Any] = OrderedDict()
        for name, evaluator in zip(names, evaluators, strict=True):
            loader = cls.build_test_loader(cfg, name)
            results[name] = run_on_dataset(cfg, model, name, loader, evaluator)
            if comm.is_main_process():
                logger.info("Results on %s:", name)
                print_csv_format(results[name])
        return results[name] if len(results) == 1 else results
