"""The page: what happens on a click."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from cat_seg.app.answers import Answers
from cat_seg.app.drawing import (
    draw_confidence,
    draw_pictures,
    legend_html,
    links_html,
    pixel_html,
    status_html,
)
from cat_seg.app.layout import HIDDEN, HINT, OWN, Layout, lay_out
from cat_seg.app.limits import read_list, read_names
from cat_seg.app.worker import Canceled, Worker, title_of
from cat_seg.errors import UserError, explain

logger = logging.getLogger(__name__)

FAILED = "the server failed; the reason is in its log"


class Page:
    """The page of a worker's models."""

    def __init__(self, worker: Worker, answers: Answers, examples: Sequence[Path] = ()) -> None:
        """Build the page.

        Args:
            worker: computes the answers.
            answers: keeps them.
            examples: image files to offer.
        """
        self._worker = worker
        self._answers = answers
        with gr.Blocks(
            title="HPS-Seg", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True
        ) as self.blocks:
            self._connect(lay_out(worker.models, examples))
            self.blocks.unload(self._leave)
        self.blocks.queue(max_size=worker.limits.waiting, default_concurrency_limit=4)

    def _connect(self, page: Layout) -> None:
        """Say what each event calls."""
        shown = [component for column in page.columns for component in column]
        drawn = [part for column in page.columns for part in (*column[:2], *column[3:])]
        page.chosen.input(
            lambda name: gr.update(visible=name == OWN),
            page.chosen,
            page.names,
            api_visibility=HIDDEN,
            show_progress="hidden",
        )
        # At once, also for those who wait in the queue.
        page.start.click(
            lambda: gr.update(interactive=True),
            None,
            page.cancel,
            queue=False,
            api_visibility=HIDDEN,
            show_progress="hidden",
        )
        run = page.start.click(
            self._segment,
            [page.picture, page.chosen, page.names, page.threshold, page.opacity],
            [page.status, page.cancel, page.empty, page.answer, page.keys, *shown],
            concurrency_limit=1,
            concurrency_id="model",
            api_visibility=HIDDEN,
            show_progress_on=page.status,
            show_progress="minimal",
        )
        page.cancel.click(
            self._cancel,
            None,
            [page.status, page.cancel],
            cancels=[run],
            queue=False,
            api_visibility=HIDDEN,
            show_progress="hidden",
        )
        for slider in (page.threshold, page.opacity):
            slider.input(
                self._redraw,
                [page.keys, page.threshold, page.opacity],
                [page.status, *drawn],
                trigger_mode="always_last",
                api_visibility=HIDDEN,
                show_progress="hidden",
            )
        for index, column in enumerate(page.columns):
            for image in (column.overlay, column.confidence):
                image.select(
                    self._reader(index),
                    [page.keys, page.threshold],
                    [column.pixel],
                    trigger_mode="always_last",
                    api_visibility=HIDDEN,
                    show_progress="hidden",
                )

    def _segment(
        self,
        picture: Path | None,
        chosen: str,
        text: str,
        threshold: float,
        opacity: float,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """Compute the answers, and say how far it is."""
        models = self._worker.models
        blank = [gr.skip()] * (6 * len(models))

        def tell(message: str, kind: str = "", busy: bool = False) -> list[Any]:
            line = status_html(message, kind)
            return [line, gr.update(interactive=busy), *[gr.skip()] * 3, *blank]

        try:
            if picture is None:
                raise UserError("no picture: upload one, paste one, or take an example")
            names = (
                read_names(text or "", self._worker.limits) if chosen == OWN else read_list(chosen)
            )
            yield tell("Waiting for the model", "busy", True)
            start, results = time.monotonic(), []
            with self._worker.job(str(request.session_hash)) as canceled:
                for model in models:
                    yield tell(f"Segmenting with {title_of(model)}", "busy", True)
                    results.append(self._worker.segment(model, picture, names, canceled))
            yield tell("Drawing", "busy", True)
            keys = tuple(map(self._answers.add, results))
            columns = [
                part
                for key, result in zip(keys, results, strict=True)
                for part in self._drawn(key, threshold, opacity, draw_confidence(result))
            ]
            classes = f"{len(names)} class{'es' * (len(names) > 1)}"
            line = status_html(f"Done: {classes} in {time.monotonic() - start:.1f} s.")
            yield [
                line,
                gr.update(interactive=False),
                gr.update(visible=False),
                gr.update(visible=True),
                keys,
                *columns,
            ]
        except Canceled:
            yield tell("Canceled.")
        except Exception as error:
            yield tell(_reason(error), "error")

    def _drawn(self, key: str, threshold: float, opacity: float, *confidence: Any) -> list[Any]:
        """Return the values of a Column, the confidence map only if it is given."""
        result = self._answers.get(key).with_threshold(threshold)
        image, overlay = draw_pictures(result, opacity)
        return [
            overlay,
            (image, overlay),
            *confidence,
            HINT,
            legend_html(result),
            links_html(key, result, threshold, opacity),
        ]

    def _redraw(self, keys: Sequence[str], threshold: float, opacity: float) -> list[Any]:
        """Draw the kept answers with another threshold or opacity."""
        try:
            drawn = [part for key in keys for part in self._drawn(key, threshold, opacity)]
            return [gr.skip(), *drawn]
        except Exception as error:
            return [status_html(_reason(error), "error"), *[gr.skip()] * (5 * len(keys))]

    def _reader(self, index: int) -> Callable[..., str]:
        """Return a function that reads the pixel of a click for a column."""

        def read(keys: Sequence[str], threshold: float, event: gr.SelectData) -> str:
            try:
                result = self._answers.get(keys[index]).with_threshold(threshold)
                x, y = map(float, event.index)
                return pixel_html(result, (int(x), int(y)))
            except Exception as error:
                return status_html(_reason(error), "error")

        return read

    def _cancel(self, request: gr.Request) -> list[Any]:
        self._worker.cancel(str(request.session_hash))
        return [status_html("Canceled."), gr.update(interactive=False)]

    def _leave(self, request: gr.Request) -> None:
        self._worker.cancel(str(request.session_hash))


def _reason(error: Exception) -> str:
    """Return one line about an error; a bug's traceback goes to the log."""
    reason = explain(error)
    if reason is None:
        logger.exception("the page failed")
    return reason or FAILED
