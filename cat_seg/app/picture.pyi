"""gradio's image upload, without gradio's own decoding and without downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like

from gradio.events import Dependency

class Picture(gr.Image):
    """An image upload whose value is the Path of the uploaded file, as it was uploaded.

    gradio refuses paths outside its own upload folder; this class also refuses URLs, which gradio
    would download. It opens nothing.
    """

    def preprocess(self, payload: Any) -> Path | None:
        """Return the path of the uploaded file, None if there is none."""
        if payload is None or payload.path is None:
            return None
        return Path(payload.path)

    async def async_move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        """Keep uploaded files where they are.

        Raises:
            gradio.Error: it is a URL.
        """
        if is_http_url_like(str(url_or_file_path)):
            raise gr.Error("a URL is not opened: download the picture, and upload it", print_exception=False)
        return await super().async_move_resource_to_block_cache(url_or_file_path)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component