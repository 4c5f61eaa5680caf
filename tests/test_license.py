"""The license is the same one wherever it is stated."""

from __future__ import annotations

import re

from cat_seg.utils.paths import REPO_ROOT


def test_every_statement_of_the_license_says_mit() -> None:
    assert (REPO_ROOT / "LICENSE").read_text().startswith("MIT License\n")
    project = (REPO_ROOT / "pyproject.toml").read_text()
    assert re.search(r'^license = "MIT"$', project, re.MULTILINE)
    assert re.search(r'^license-files = \["LICENSE", "NOTICE"\]$', project, re.MULTILINE)
    assert "[MIT](LICENSE)" in (REPO_ROOT / "README.md").read_text()


def test_notice_names_every_shipped_class_list() -> None:
    notice = (REPO_ROOT / "NOTICE").read_text()
    shipped = {file.name for file in (REPO_ROOT / "datasets").glob("*.json")}
    assert {name for name in shipped if not name.startswith("quickstart")} == set(
        re.findall(r"(?:datasets/)?(\w+\.json)", notice)
    )
