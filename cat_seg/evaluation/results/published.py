"""Published figures as rows of a results table."""

from __future__ import annotations

import json

from cat_seg.errors import UserError
from cat_seg.evaluation.results.table import Cell, Row
from cat_seg.utils.paths import SHIPPED_ROOT

FILE = SHIPPED_ROOT / "datasets" / "mess" / "published.json"


def published_rows(view: str, metric: str) -> list[Row]:
    """Return MESS's leaderboard as rows without a difference.

    Args:
        view: a key of `cat_seg.evaluation.results.columns.VIEWS`.
        metric: the metric of the table.

    Raises:
        UserError: there are no published figures of that view or metric.
    """
    content = json.loads(FILE.read_text(encoding="utf-8"))
    if view not in content["figures"]:
        raise UserError(
            f"--published: there are no figures for --table {view}; choose from "
            f"{', '.join(content['figures'])}"
        )
    if metric != content["metric"]:
        raise UserError(f"--published: the figures are {content['metric']}, not {metric}")
    headings, methods = content["figures"][view]["headings"], content["figures"][view]["methods"]
    return [
        Row(
            method,
            "published",
            runs=1,
            baseline=method,
            cells={
                heading: Cell(value, None, 1)
                for heading, value in zip(headings, values, strict=True)
                if value is not None
            },
            source=content["source"],
        )
        for method, values in methods.items()
    ]
