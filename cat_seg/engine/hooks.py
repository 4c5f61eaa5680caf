"""Hooks that make stopping and resuming exact."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook, PeriodicWriter
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn

from cat_seg.checkpoint.checkpointer import Checkpointer
from cat_seg.utils.metrics_file import read_metrics
from cat_seg.utils.processes import STOPPING

logger = logging.getLogger(__name__)


class MetricHistory(HookBase):
    """Hook that keeps the smoothing windows of the losses across a resume.

    detectron2's writers print medians over the last iterations. With this hook, a resumed run
    writes the same values as one that never stopped.
    """

    def __init__(self, window: int = 20) -> None:
        """Keep the last `window` values of each smoothed metric; the writers' window is 20."""
        self._window = window
        self._restored: dict[str, list[tuple[float, int]]] = {}

    def before_train(self) -> None:
        for name, values in self._restored.items():
            for value, iteration in values:
                self.trainer.storage.put_scalar(name, value, cur_iter=int(iteration))

    def state_dict(self) -> dict[str, Any]:
        storage = getattr(self.trainer, "storage", None)
        if storage is None:  # saved before training began
            return self._restored
        smoothed = storage.smoothing_hints()
        # Times belong to the process that measured them.
        return {
            name: history.values()[-self._window :]
            for name, history in storage.histories().items()
            if smoothed[name] and not name.endswith("time")
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict


class MetricWriter(PeriodicWriter):
    """detectron2's PeriodicWriter, except that resuming a finished run writes nothing twice."""

    def __init__(self, writers: Sequence[EventWriter], file: Path) -> None:
        """Use `writers`, one of which writes `file`, and close them at the end."""
        super().__init__(writers)
        self._to_close = writers
        self._file = file

    def after_train(self) -> None:
        if self.trainer.start_iter < self.trainer.max_iter or self._has_news():
            super().after_train()
            return
        for writer in self._to_close:
            writer.close()

    def _has_news(self) -> bool:
        """Return whether the file lacks a metric, because the run stopped in its last iteration."""
        written = read_metrics(self._file) if self._file.exists() else {}
        last = self.trainer.max_iter  # a resumed run counts an evaluation after it one further
        return any(
            name not in written.get(min(at, last), {})
            for name, (_, at) in self.trainer.storage.latest().items()
        )


class Evaluation(EvalHook):
    """EvalHook that skips the final evaluation if training failed on its last iteration.

    Evaluating would hide the error for hours, or forever: other ranks never join the evaluation.
    """

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()


class StopOnSignal(HookBase):
    """Hook that, on a signal in STOPPING, finishes the iteration, saves, and exits with 128 + it.

    All ranks stop after the same iteration, which is the next one if a signal comes after its step.
    A second Ctrl-C kills at once.
    """

    def __init__(self, checkpointer: Checkpointer, agreed: Callable[[], int] | None = None) -> None:
        """Save with `checkpointer`, unless it has already saved this iteration.

        Args:
            checkpointer: saves on every rank.
            agreed: returns the largest `received` of all ranks; None if there is one rank.
        """
        self._checkpointer = checkpointer
        self.received = 0  # the signal, or 0
        self._agreed = agreed or (lambda: self.received)
        self._iteration: int | None = None  # the last one that ran
        self._handlers: dict[int, Any] = {}

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():  # only it can set handlers
            for signum in STOPPING:
                self._handlers[signum] = signal.signal(signum, self._receive)

    def before_step(self) -> None:
        self._iteration = self.trainer.iter

    def after_step(self) -> None:
        signum = self._agreed()
        if signum:
            self.save()
            comm.synchronize()
            self._exit(signum)

    def after_train(self) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def save(self, done: int | None = None) -> None:
        """Save the iteration that just ended, on every rank, unless it is saved already.

        Args:
            done: the last complete iteration; by default the last one that started.
        """
        done = self._iteration if done is None else done
        if done is not None and self._checkpointer.saved_iteration != done:
            self._checkpointer.save(f"model_{done:07d}", iteration=done)

    @contextmanager
    def before_each_call(self, model: nn.Module) -> Iterator[None]:
        """In this context, a signal ends the process before the next call of `model`.

        Meant for evaluation, which is long and changes nothing. Save everything before entering.
        """
        self._exit_if_signalled()
        hook = model.register_forward_pre_hook(lambda *_: self._exit_if_signalled())
        try:
            yield
        finally:
            hook.remove()

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        # Do not raise here: a callback could swallow the exception, or an iteration be cut short.
        self.received = self.received or signum
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _exit_if_signalled(self) -> None:
        if self.received:
            self._exit(self.received)

    def _exit(self, signum: int) -> None:
        logger.info(
            "Stopped by %s; run the same command with --resume to continue from %s",
            signal.Signals(signum).name,
            self._checkpointer.get_checkpoint_file(),
        )
        raise SystemExit(128 + signum)
