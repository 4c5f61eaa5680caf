"""The models behind the page: one computation at a time, which can be canceled."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook

from cat_seg.app.limits import Limits, check_picture, without_folder
from cat_seg.errors import UserError
from cat_seg.inference import Result, Segmenter


class Canceled(Exception):
    """A computation ended early because its user canceled it or left."""


class Busy(UserError):
    """Too many requests wait for the models."""


class Worker:
    """Computes answers with one or more models, one at a time.

    Attributes:
        models: the models.
        limits: what is accepted.
    """

    def __init__(self, models: Sequence[Segmenter], limits: Limits) -> None:
        """Use these models within these limits."""
        self.models = tuple(models)
        self.limits = limits
        self._busy = threading.Lock()
        self._waiting = threading.BoundedSemaphore(limits.waiting + 1)
        self._jobs: dict[str, threading.Event] = {}

    def cancel(self, job: str) -> bool:
        """Cancel a job by its key, and return whether it was there."""
        event = self._jobs.get(job)
        if event is not None:
            event.set()
        return event is not None

    @contextmanager
    def job(self, key: str) -> Iterator[threading.Event]:
        """Wait for the models, and hold them while the context lasts.

        Args:
            key: for `cancel`.

        Raises:
            Busy: too many others wait already.
            Canceled: the job was canceled while it waited.
        """
        if not self._waiting.acquire(blocking=False):
            raise Busy("the server is busy; try again in a minute")
        canceled = self._jobs.setdefault(key, threading.Event())
        canceled.clear()
        try:
            while not self._busy.acquire(timeout=0.1):
                if canceled.is_set():
                    raise Canceled
            try:
                yield canceled
            finally:
                self._busy.release()
        finally:
            self._jobs.pop(key, None)
            self._waiting.release()

    def segment(
        self, model: Segmenter, path: Path, names: Sequence[str], canceled: threading.Event
    ) -> Result:
        """Segment an image file within a job.

        Raises:
            UserError: the limits are exceeded, or the image, the names or the model are at fault;
                the message names the file without its folder.
            Canceled: `canceled` was set meanwhile.
        """
        check_picture(path, self.limits)
        with _ended_by(canceled):
            try:
                return model.segment(path, list(names))
            except UserError as error:
                raise UserError(without_folder(error, path)) from error


def title_of(model: Segmenter) -> str:
    """Return the name of a model for the page: of a path, its last two parts."""
    return "/".join(Path(model.name).parts[-2:]) if os.path.exists(model.name) else model.name


@contextmanager
def _ended_by(canceled: threading.Event) -> Iterator[None]:
    """Raise Canceled at the next module that this thread calls once `canceled` is set."""
    thread = threading.get_ident()

    def check(module: Any, inputs: Any) -> None:
        if threading.get_ident() == thread and canceled.is_set():
            raise Canceled

    handle = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
