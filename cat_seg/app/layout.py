"""Where the parts of the page stand."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from cat_seg.app.drawing import status_html
from cat_seg.app.limits import shipped_lists
from cat_seg.app.picture import Picture
from cat_seg.app.worker import title_of
from cat_seg.inference import Segmenter

OWN = "my own names"
OPACITY = 0.55
# Names of the model's own vocabulary that the page starts with.
MOST_SUGGESTED = 30
HIDDEN = "private"  # clients use the endpoint of endpoint.py
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


class Layout(NamedTuple):
    """The components that take part in events."""

    keys: gr.State
    picture: Picture
    chosen: gr.Dropdown
    names: gr.Textbox
    start: gr.Button
    cancel: gr.Button
    status: gr.HTML
    empty: gr.HTML
    answer: gr.Column
    opacity: gr.Slider
    threshold: gr.Slider
    columns: list[Column]


def lay_out(models: Sequence[Segmenter], examples: Sequence[Path]) -> Layout:
    """Create the components of the page within the current gr.Blocks.

    Args:
        models: one column of answers for each.
        examples: image files to offer.
    """
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
                start = gr.Button("Segment", variant="primary", elem_id="segment", min_width=120)
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
                    columns = [
                        _column(index, title_of(model) if len(models) > 1 else "")
                        for index, model in enumerate(models)
                    ]
    return Layout(
        keys,
        picture,
        chosen,
        names,
        start,
        cancel,
        status,
        empty,
        answer,
        opacity,
        threshold,
        columns,
    )


def _column(index: int, title: str) -> Column:
    options: dict[str, Any] = {
        "show_label": False,
        "container": False,
        "interactive": False,
    }
    with gr.Column(min_width=280, elem_id=f"model-{index}"):
        if title:
            gr.HTML(f"<h3>{escape(title)}</h3>")
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
