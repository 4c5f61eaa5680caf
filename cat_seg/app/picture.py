"""gradio's image upload, without gradio's own decoding and without downloads."""

from __future__ import annotations

from abc import ABCMeta
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like


class _Overrides:
    """An image upload whose value is the Path of the file as it was uploaded, or None.

    gradio refuses paths outside its own upload folder. URLs, which it would download, are refused
    here. Nothing is opened.
    """

    is_template = True  # the browser shows it as it shows gr.Image

    def preprocess(self, payload: Any) -> Path | None:
        return Path(payload.path) if payload is not None and payload.path else None

    async def async_move_resource_to_block_cache(self, url_or_path: Any) -> str | None:
        if is_http_url_like(str(url_or_path)):
            raise gr.Error("URLs are not opened; upload the picture", print_exception=False)
        return await gr.Image.async_move_resource_to_block_cache(self, url_or_path)


_skipped = ("__dict__", "__weakref__")
_members = {name: value for name, value in vars(_Overrides).items() if name not in _skipped}
# A class statement would make gradio write a .pyi file beside this module.
Picture: Any = ABCMeta.__new__(type(gr.Image), "Picture", (gr.Image,), _members)
