"""Training by detectron2's conventions, with exact resuming."""

from __future__ import annotations

import logging
import warnings
import weakref
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, TrainerBase, create_ddp_model, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from cat_seg.analysis.diagnostics_hook import diagnostics_loggers
from cat_seg.analysis.radius_hook import radius_loggers
from cat_seg.checkpoint.checkpointer import Checkpointer, last_checkpoint
from cat_seg.configuration.precision import amp_dtype
from cat_seg.engine.builders import Builders
from cat_seg.engine.hooks import Evaluation, MetricHistory, MetricWriter, StopOnSignal
from cat_seg.engine.resuming import resumed_config, run_config
from cat_seg.engine.step import BatchError, StepTrainer
from cat_seg.errors import UserError, explain
from cat_seg.evaluation import check_test_datasets
from cat_seg.utils.files import drop_unfinished_line
from cat_seg.utils.rng import rng_state, seed_run, set_rng_state

logger = logging.getLogger(__name__)

METRICS = "metrics.json"  # the name that detectron2's writer uses
FINAL = "model_final"  # PeriodicCheckpointer's name for the checkpoint of the last iteration


def _is_unexplained(record: logging.LogRecord) -> bool:
    return not (record.exc_info and record.exc_info[1] and explain(record.exc_info[1]))


# detectron2 logs every error that ends training, with a traceback. Errors that `explain` covers
# are reported in one line instead.
logging.getLogger("detectron2.engine.train_loop").addFilter(_is_unexplained)


class Trainer(Builders):
    """detectron2's DefaultTrainer for a `TrainableSegmentor`.

    A run that was stopped and resumed gives the same losses and weights as one that never stopped,
    bit for bit on a CPU.
    """

    iter: int

    def __init__(self, cfg: CfgNode) -> None:
        """Build model, optimizer, loader and hooks.

        Raises:
            UserError: a dataset or a value in the config cannot be used.
        """
        # Skip DefaultTrainer.__init__: it puts every model on a GPU, and its loaders have no seed
        # or start iteration.
        TrainerBase.__init__(self)
        self._given, self._config = cfg, run_config(cfg)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.seed = seed_run(cfg.SEED)
        self._rng: dict[str, Any] | None = None

        # Before building the model, which takes longest, so that bad configs and datasets are
        # reported at once.
        precision = amp_dtype(cfg)
        try:
            check_test_datasets(cfg)
        except UserError as error:
            raise UserError(
                f'{error}; to train without evaluation, set DATASETS.TEST "()"'
            ) from error
        data_loader = self.build_train_loader(cfg, self.seed)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        device_type = torch.device(cfg.MODEL.DEVICE).type
        on_gpu = device_type == "cuda"
        with warnings.catch_warnings():
            # Each process would warn, and older PyTorch has no other name for the argument.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            model = create_ddp_model(
                model,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                device_ids=[torch.cuda.current_device()] if on_gpu else None,
            )
        self._trainer = StepTrainer(
            *(model, data_loader, optimizer),
            device_type=device_type,
            amp_dtype=precision,
            accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
            flag=lambda: self._stop.received,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            model,
            cfg.OUTPUT_DIR,
            averaged=cfg.MODEL.WEIGHTS_EMA,
            trainer=weakref.proxy(self),
        )
        alone = comm.get_world_size() == 1
        self._stop = StopOnSignal(
            self.checkpointer, None if alone else lambda: self._trainer.agreed
        )
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        """Return detectron2's default hooks; those that save run on every rank, as they must."""
        built = [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            MetricHistory(),
            hooks.PeriodicCheckpointer(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD),
            Evaluation(self.cfg.TEST.EVAL_PERIOD, self._evaluate),
            *diagnostics_loggers(
                self.cfg, self.model, self._trainer.autocast, self._trainer.grad_scaler
            ),
        ]
        if comm.is_main_process():
            built += radius_loggers(self.cfg, self.model)
            built.append(MetricWriter(self.build_writers(), Path(self.cfg.OUTPUT_DIR, METRICS)))
        return [*built, self._stop]

    def build_writers(self) -> list[EventWriter]:
        """Return detectron2's writers; an unfinished last line of metrics.json is dropped."""
        drop_unfinished_line(Path(self.cfg.OUTPUT_DIR, METRICS))
        return super().build_writers()

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the last checkpoint in OUTPUT_DIR, or start over from MODEL.WEIGHTS.

        Raises:
            UserError: the checkpoint cannot be loaded.
        """
        unused = self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if "rng" not in unused:
            return
        self.start_iter = self.iter + 1
        if len(unused["rng"]) == comm.get_world_size():
            self._rng = unused["rng"][comm.get_rank()]
        else:
            logger.warning(
                "The checkpoint is from a run with %d processes, but this run has %d; random "
                "numbers will differ",
                len(unused["rng"]),
                comm.get_world_size(),
            )
        self._trainer.reset_data_loader(
            lambda: self.build_train_loader(self.cfg, self.seed, self.start_iter)
        )
        if self.start_iter >= self.max_iter:
            self._finish()

    def _finish(self) -> None:
        """Write model_final.pth if it is missing because the process was killed just before."""
        logger.info(
            "Nothing left to train: the checkpoint has %d iterations, and SOLVER.MAX_ITER is %d",
            *(self.start_iter, self.max_iter),
        )
        if any(comm.all_gather(Path(self.cfg.OUTPUT_DIR, f"{FINAL}.pth").exists())):
            return
        if self._rng is not None:
            set_rng_state(self._rng)
        self.checkpointer.save(FINAL, iteration=self.iter)

    def before_train(self) -> None:
        """Run the hooks, then restore the saved random state."""
        super().before_train()
        if self._rng is not None:
            set_rng_state(self._rng)

    def run_step(self) -> None:
        """Take one step; an error that ends the run also names the checkpoint to resume from.

        Raises:
            UserError: a batch cannot be loaded (the iterations so far are saved), or training
                diverges (nothing is saved).
        """
        try:
            super().run_step()
        except UserError as error:
            message = str(error)
            if isinstance(error, BatchError) and self.iter > self.start_iter:
                # This iteration has not started.
                self.iter = self._trainer.iter = self.iter - 1
                try:
                    self._stop.save(self.iter)
                except UserError as unsaved:
                    message += f"; {unsaved}"
                comm.synchronize()  # the first process to exit ends the others
            last = last_checkpoint(self.cfg.OUTPUT_DIR)
            raise UserError(
                f"{message}; rerun with --resume to continue from {last}"
                if last
                else f"{message}; there is no checkpoint yet"
            ) from error

    def after_train(self) -> None:
        """End the data workers, then run the hooks, including the last evaluation."""
        self._trainer.end_loading()
        super().after_train()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of trainer, hooks, optimizer and loss scale, with seed and config."""
        return super().state_dict() | {"seed": self.seed, "config": self._config}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a `state_dict`; its seed replaces that of the config."""
        super().load_state_dict(state_dict)
        saved = state_dict.get("config", {})
        resumed = resumed_config(self._given, saved)
        if resumed.kept:
            logger.warning("%s", resumed.kept)
        ended = self.iter + 1 >= self.max_iter  # so nothing is trained with the new config
        self._config = saved if ended else run_config(resumed.cfg)
        if self.cfg.SEED not in (-1, state_dict["seed"]):
            logger.warning(
                "Ignoring SEED %d: the run started with SEED %d", self.cfg.SEED, state_dict["seed"]
            )
        self.seed = state_dict["seed"]

    def _evaluate(self) -> dict[str, Any]:
        if not self.cfg.DATASETS.TEST:
            return {}
        # Evaluation takes long. Save everything first, so that it can be interrupted.
        self._stop.save()
        before = rng_state()
        model: Any = getattr(self.model, "module", self.model)
        with self._stop.before_each_call(model):
            self._last_eval_results = self.test(self.cfg, self.model)
        set_rng_state(before)
        return self._last_eval_results
