"""What all tests start from."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path

import pytest

from tests.parity.summary import pytest_terminal_summary  # noqa: F401 (a hook)

TESTS = Path(__file__).parent
# What `make test-fast` leaves out: tests that start interpreters, train, or build full-size models.
SLOW = (
    *("parity", "fuzz", "scripts", "tools", "test_end_to_end.py", "test_wheel.py"),
    *("test_fine_tuning.py", "test_distributed.py", "test_public_names.py", "engine/test_model.py"),
    *("test_activation_checkpointing.py", "test_enhanced_cat_seg_model.py", "test_extending.py"),
    *("cli/test_analyse.py", "engine/test_diagnostics_hook.py", "analysis/test_text_distance.py"),
    *("cli/test_evaluate.py", "cli/test_evaluate_mess.py", "cli/test_main.py"),
    *("cli/test_segment.py", "cli/test_radius.py"),
    *("cli/test_segment_devices.py", "inference/test_notebook.py"),
    *("engine/test_endings.py", "engine/test_launch.py", "engine/test_trainer.py"),
    *("engine/test_accumulation.py", "engine/test_compiling.py", "engine/test_setup.py"),
    *("engine/test_radius_hook.py", "engine/test_resuming.py", "engine/test_evaluation.py"),
    *("evaluation/test_run.py", "evaluation/test_sem_seg.py", "utils/test_parallel.py"),
    *(
        "utils/test_compatibility.py",
        "utils/test_windows.py",
        "data/test_check.py",
        "data/test_custom.py",
    ),
    *("hub/test_download.py", "hub/test_sharing.py", "hub/test_pretrained.py"),
    *("data/test_custom_labels.py", "data/preparation", "checkpoint/test_fitting.py"),
    *(
        "app",
        "test_errors_and_paths.py",
        "modeling/clip/adapters",
        "modeling/clip/test_architecture.py",
    ),
)

# The page has an environment of its own.
HAS_GRADIO = importlib.util.find_spec("gradio") is not None
collect_ignore = [] if HAS_GRADIO else ["app"]


def pytest_report_header() -> list[str]:
    """Say why the page's tests are left out."""
    line = "tests/app: left out, as gradio is not here; `make test` runs them in .venv-demo"
    return [] if HAS_GRADIO else [line]


def pytest_configure() -> None:
    """Let signals through: a shell and nohup ignore some in what they start in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests."""
    slow = [TESTS / name for name in SLOW]
    for item in items:
        if any(item.path == path or path in item.path.parents for path in slow):
            item.add_marker(pytest.mark.slow)
