"""What all tests start from."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let Ctrl-C through: a shell ignores it in what it starts in the background, for ever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
