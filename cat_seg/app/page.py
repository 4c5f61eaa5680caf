"""The page: what stands where, and what happens on a click."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

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
from cat_seg.app.limits import read_list, read_names, shipped_lists
from cat_seg.app.picture import Picture
from cat_seg.app.worker import Canceled, Worker, title_of
from cat_seg.errors import UserError, explain
from cat_seg.inference import Segmenter

logger = logging.getLogger(__name__)

OWN = "my own names"
OPACITY = 0.55
# Names of the model's own vocabulary that the page starts with.
MOST_SUGGESTED = 12
HIDDEN = "private"  # clients use the endpoint of endpoint.py
FAILED = "the server failed; the reason is in its log"
HINT = '<div class="hint">Click the picture to read class and confidence at a pixel.</div>'
EMPTY = (
    '<div class="empty"><b>The answer appears here</b>'
    "Choose a picture, name the classes to look for, and press Segment.</div>"
)
SCALE = '<div class="scale">0 <i></i> 1</div>'


class Column(NamedTuple):
    """The components that show the answer of one model."""

    overlay: gr.Image
    compare: gr.ImageSlider
    confidence: gr.Image
    pixel: gr.HTML
    legend: gr.HTML
    links: gr.HTML


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
            self._build(examples)
            self.blocks.unload(self._leave)
        self.blocks.queue(max_size=worker.limits.waiting, default_concurrency_limit=4)

    def _build(self, examples: Sequence[Path]) -> None:
        models = self._worker.models
        gr.HTML(_heading(models), elem_classes="heading")
        keys = gr.State(())
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                picture = Picture(
                    label="Picture",
                    sources=["upload", "clipboard"],
                    height=260,
                    elem_id="picture",
                    buttons=[],
                )
                if examples:
                    gr.Examples(
                        [[str(path)] for path in examples],
                        [picture],
                        label="Examples",
                        api_visibility=HIDDEN,
                    )
                chosen = gr.Dropdown(
                    [OWN, *shipped_lists()],
                    value=OWN,
                    label="Classes",
                    elem_id="list",
                    info="Type names, or pick a list.",
                )
                names = gr.Textbox(
                    value=_suggestion(models[0]),
                    label="Names",
                    lines=3,
                    max_lines=10,
                    placeholder="cat, grass, sky",
                    info="Separated by commas or line breaks.",
                    elem_id="names",
                )
                with gr.Row():
                    start = gr.Button(
                        "Segment", variant="primary", elem_id="segment", min_width=120
                    )
                    cancel = gr.Button("Cancel", interactive=False, elem_id="cancel", min_width=80)
                status = gr.HTML(status_html(""), elem_id="status")
            with gr.Column(scale=3 if len(models) == 1 else 5, min_width=300):
                empty = gr.HTML(EMPTY)
                with gr.Column(visible=False) as answer:
                    with gr.Row():
                        opacity = gr.Slider(
                            0,
                            1,
                            OPACITY,
                            step=0.05,
                            label="Opacity",
                            elem_id="opacity",
                            min_width=140,
                            buttons=[],
                        )
                        threshold = gr.Slider(
                            0,
                            1,
                            0,
                            step=0.01,
                            label="Minimum confidence",
                            elem_id="threshold",
                            min_width=140,
                            buttons=[],
                        )
                    with gr.Row(equal_height=False):
                        columns = [self._column(index, model) for index, model in enumerate(models)]

        shown = [component for column in columns for component in column]
        drawn = [part for column in columns for part in (*column[:2], *column[3:])]
        chosen.input(
            lambda name: gr.update(visible=name == OWN),
            chosen,
            names,
            api_visibility=HIDDEN,
            show_progress="hidden",
        )
        # At once, also for those who wait in the queue.
        start.click(
            lambda: gr.update(interactive=True),
            None,
            cancel,
            queue=False,
            api_visibility=HIDDEN,
            show_progress="hidden",
        )
        run = start.click(
            self._segment,
            [picture, chosen, names, threshold, opacity],
            [status, cancel, empty, answer, keys, *shown],
            concurrency_limit=1,
            concurrency_id="model",
            api_visibility=HIDDEN,
            show_progress_on=status,
            show_progress="minimal",
        )
        cancel.click(
            self._cancel,
            None,
            [status, cancel],
            cancels=[run],
            queue=False,
            api_visibility=HIDDEN,
            show_progress="hidden",
        )
        for slider in (threshold, opacity):
            slider.input(
                self._redraw,
                [keys, threshold, opacity],
                [status, *drawn],
                trigger_mode="always_last",
                api_visibility=HIDDEN,
                show_progress="hidden",
            )
        for index, column in enumerate(columns):
            for image in (column.overlay, column.confidence):
                image.select(
                    self._reader(index),
                    [keys, threshold],
                    [column.pixel],
                    trigger_mode="always_last",
                    api_visibility=HIDDEN,
                    show_progress="hidden",
                )

    def _column(self, index: int, model: Segmenter) -> Column:
        options: dict[str, Any] = {
            "show_label": False,
            "container": False,
            "interactive": False,
        }
        with gr.Column(min_width=280, elem_id=f"model-{index}"):
            if len(self._worker.models) > 1:
                gr.HTML(f"<h3>{escape(title_of(model))}</h3>")
            with gr.Tabs():
                with gr.Tab("Overlay"):
                    overlay = gr.Image(
                        elem_id=f"overlay-{index}",
                        buttons=["fullscreen"],
                        alt_text="the picture with its classes",
                        **options,
                    )
                with gr.Tab("Compare"):
                    compare = gr.ImageSlider(elem_id=f"compare-{index}", buttons=[], **options)
                with gr.Tab("Confidence"):
                    confidence = gr.Image(
                        elem_id=f"confidence-{index}",
                        buttons=["fullscreen"],
                        alt_text="the confidence at each pixel",
                        **options,
                    )
                    gr.HTML(SCALE)
            return Column(
                overlay,
                compare,
                confidence,
                gr.HTML(HINT, elem_id=f"pixel-{index}"),
                gr.HTML(elem_id=f"legend-{index}"),
                gr.HTML(elem_id=f"links-{index}"),
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


def _heading(models: Sequence[Segmenter]) -> str:
    names = " and ".join(
        f"<b>{escape(title_of(model))}</b> on {model.device.type}" for model in models
    )
    return (
        "<h1>HPS-Seg</h1><p>Open-vocabulary segmentation: every pixel of a picture gets one of the "
        f"classes that you name. Model: {names}.</p>"
    )


def _suggestion(model: Segmenter) -> str:
    """Return names to start with: the model's own if they are few."""
    names = [name.split(",")[0] for name in model.vocabulary]
    return ", ".join(names) if len(names) <= MOST_SUGGESTED else "person, tree, grass, sky"
