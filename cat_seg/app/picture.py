"""gradio's image upload, without gradio's own decoding and without downloads."""

from __future__ import annotations

import os
from abc import ABCMeta
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from gradio_client.utils import is_http_url_like


class _Overrides:
    """An image upload whose value is the Path of the file as it was uploaded, or None.

    Paths outside gradio's upload folder are refused here, since gradio itself lets those pass that
    do not say that they are files, and so are URLs, which it would download. Nothing is opened.
    """

    is_template = True  # the browser shows it as it shows gr.Image

    def preprocess(self, payload: Any) -> Path | None:
        if payload is None or not payload.path:
            return None
        path = Path(os.path.realpath(payload.path))
        if not path.is_relative_to(os.path.realpath(get_upload_folder())):
            raise gr.Error("paths are not opened; upload the picture", print_exception=False)
        return path

    async def async_move_resource_to_block_cache(self, url_or_path: Any) -> str | None:
        if is_http_url_like(str(url_or_path)):
            raise gr.Error("URLs are not opened; upload the picture", print_exception=False)
        return await gr.Image.async_move_resource_to_block_cache(self, url_or_path)


_skipped = ("__dict__", "__weakref__")
_members = {name: value for name, value in vars(_Overrides).items() if name not in _skipped}
# A class statement would make gradio write a .pyi file beside this module.
Picture: Any = ABCMeta.__new__(type(gr.Image), "Picture", (gr.Image,), _members)
