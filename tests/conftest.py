"""What all tests start from."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let signals through: a shell and nohup ignore some in what they start in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
