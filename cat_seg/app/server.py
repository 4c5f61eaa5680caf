"""Starts the page and the endpoint."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.responses import JSONResponse

from cat_seg.app.answers import Answers
from cat_seg.app.endpoint import Endpoint
from cat_seg.app.limits import MEGABYTE, Limits
from cat_seg.app.page import Page
from cat_seg.app.style import CSS, theme
from cat_seg.app.worker import Worker
from cat_seg.errors import UserError
from cat_seg.inference import Segmenter

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Everything that the page shows comes from its own server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; base-uri 'self'; object-src 'none'"
)
# Of a form, beside its file.
FORM_BYTES = MEGABYTE


class Guard:
    """ASGI middleware: refuses large request bodies, and keeps the browser on this server."""

    def __init__(self, app: Any, most_bytes: int) -> None:
        """Wrap `app`; `most_bytes` is the size of a body."""
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with status 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        # Without a length, a body could go on forever.
        length = headers.get(b"content-length", b"0")
        chunked = b"transfer-encoding" in headers
        if chunked or not length.isdigit() or int(length) > self._most_bytes:
            line = f"a request may have {self._most_bytes // MEGABYTE} MB, and must say its length"
            await JSONResponse({"error": line}, 413)(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                ]
            await send(message)

        await self._app(scope, receive, send_with_policy)


class Server:
    """A running page, for `with`; leaving it stops the server.

    Attributes:
        worker: computes the answers.
        url: where the page is.
        share_url: its public address, None without `share`.
    """

    def __init__(
        self,
        models: Sequence[Segmenter],
        *,
        host: str = "127.0.0.1",
        port: int = 7860,
        share: bool = False,
        examples: Sequence[Path] = (),
        limits: Limits | None = None,
    ) -> None:
        """Start the server in threads of this process.

        Args:
            models: one model, or two to compare.
            host: address to listen on; "0.0.0.0" for all of this machine's.
            port: port to listen on; 0 for any free one.
            share: also tunnel the page through gradio's public server.
            examples: image files that the page offers.
            limits: what is accepted.

        Raises:
            UserError: the address or the port cannot be used.
        """
        # Also for what gradio starts before it looks at the arguments.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        limits = limits or Limits()
        port = _free_port(host, port)
        self.worker, answers = Worker(models, limits), Answers()
        self._page = Page(self.worker, answers, examples)
        middleware = Middleware(Guard, most_bytes=limits.megabytes * MEGABYTE + FORM_BYTES)
        _, self.url, self.share_url = self._page.blocks.launch(
            server_name=host,
            server_port=port,
            share=share,
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            show_error=False,
            allowed_paths=[],
            max_file_size=limits.megabytes * MEGABYTE,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            footer_links=[],
            state_session_capacity=100,
            theme=theme(),
            css=CSS,
            app_kwargs={
                "routes": Endpoint(self.worker, answers).routes(),
                "middleware": [middleware],
            },
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def wait(self) -> None:
        """Serve until this thread is interrupted."""
        threading.Event().wait()

    def close(self) -> None:
        """Stop serving."""
        self._page.blocks.close(verbose=False)


def _free_port(host: str, port: int) -> int:
    """Return `port` if it can be listened on, or any free one for 0.

    Raises:
        UserError: it cannot.
    """
    try:
        if not 0 <= port <= 65535:
            raise OverflowError("a port is a number from 0 to 65535")
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}; "
            "choose others with --host and --port"
        ) from error
