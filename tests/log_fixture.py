"""Logging that a test can look at and that does not outlive it."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def log(caplog) -> pytest.LogCaptureFixture:
    """What the project logs, also after detectron2's setup_logger; its handlers are removed."""
    names = ("cat_seg", "detectron2", "fvcore")
    for name in names:
        logging.getLogger(name).addHandler(caplog.handler)
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).propagate = False
    yield caplog
    for name in names:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
