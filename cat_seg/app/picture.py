"""gradio's image upload, without gradio's own decoding and without downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like


def picture_upload(**options: Any) -> gr.Image:
    """Return an image upload whose value is the Path of the file as it was uploaded, or None.

    gradio refuses paths outside its own upload folder. URLs, which it would download, are refused
    here. Nothing is opened.

    Args:
        options: arguments of gradio.Image.
    """
    # Not a subclass: gradio writes a .pyi file beside the module of each of its subclasses.
    upload = gr.Image(**options)
    move = upload.async_move_resource_to_block_cache

    async def move_file(url_or_path: Any) -> str | None:
        if is_http_url_like(str(url_or_path)):
            raise gr.Error("URLs are not opened; upload the picture", print_exception=False)
        return await move(url_or_path)

    upload.async_move_resource_to_block_cache = move_file
    upload.preprocess = _path_of
    return upload


def _path_of(payload: Any) -> Path | None:
    return Path(payload.path) if payload is not None and payload.path else None
