"""The table of differences that a test run ends with, also if other processes ran the tests."""

from __future__ import annotations

import pytest
from tabulate import tabulate

LARGEST_DIFFERENCES = "largest differences from the published systems"  # the property of a test


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the largest difference from the recorded values, by model and kind of value."""
    largest: dict[str, dict[str, float]] = {}
    for report in (one for reports in terminalreporter.stats.values() for one in reports):
        for name, value in getattr(report, "user_properties", ()):
            if name != LARGEST_DIFFERENCES:
                continue
            model, errors = value
            row = largest.setdefault(model, {})
            for kind, error in errors.items():
                row[kind] = max(error, row.get(kind, 0.0))
    if not largest:
        return
    kinds = list(dict.fromkeys(kind for errors in largest.values() for kind in errors))
    rows = [[model, *(errors.get(kind) for kind in kinds)] for model, errors in largest.items()]
    terminalreporter.section(LARGEST_DIFFERENCES)
    table = tabulate(rows, ["model", *kinds], "github", floatfmt=".1e", missingval="")
    terminalreporter.write_line(table)
