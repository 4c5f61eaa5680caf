"""requirements.txt names what is imported: all of it, and nothing else."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from cat_seg.utils.paths import REPO_ROOT
from tools.install_detectron2 import REQUIRES

DISTRIBUTIONS = {
    "PIL": "pillow",
    "fontTools": "fonttools",
    "gradio_client": "gradio-client",
    "huggingface_hub": "huggingface-hub",
    "cv2": "opencv-python-headless",
    "open_clip": "open-clip-torch",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
OWN = {"cat_seg", "demo", "tools", "train_net", "tests", "detectron2"}
# Type checkers have it built in.
STUBS = {"_typeshed"}


def named_in(path: Path) -> set[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return {re.split(r"[<>=!~ ;\[]", line)[0].replace("_", "-").lower() for line in lines if line}


# These need the extra "demo", and are tested with tests/app/requirements.txt.
OF_THE_PAGE = [REPO_ROOT / name for name in ("cat_seg/app", "tests/app", "tools/screenshot.py")]


def imported_under(*names: str, page: bool = False) -> set[str]:
    """Distributions that the sources under files and folders of the repository import.

    Only sources of the page are looked at if `page`, else all others.
    """
    modules: set[str] = set()
    for name in names:
        path = REPO_ROOT / name
        for source in path.rglob("*.py") if path.is_dir() else [path]:
            if page != any(source.is_relative_to(part) for part in OF_THE_PAGE):
                continue
            for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    modules.add(node.module.split(".")[0])
    foreign = modules - set(sys.stdlib_module_names) - OWN - STUBS
    return {DISTRIBUTIONS.get(module, module) for module in foreign}


def test_requirements_are_what_the_project_and_detectron2_import() -> None:
    imported = imported_under("cat_seg", "demo", "tools", "train_net.py") | set(REQUIRES)
    assert named_in(REPO_ROOT / "requirements.txt") == imported


def test_tests_need_only_the_requirements_and_the_dev_extra() -> None:
    named = named_in(REPO_ROOT / "requirements.txt") | named_in(
        REPO_ROOT / "tests" / "requirements.txt"
    )
    assert imported_under("tests") <= named


def test_page_needs_only_the_requirements_and_its_own() -> None:
    own = named_in(REPO_ROOT / "cat_seg" / "app" / "requirements.txt")
    general = named_in(REPO_ROOT / "requirements.txt")
    assert imported_under("cat_seg", page=True) - general == own
    tests = named_in(REPO_ROOT / "tests" / "requirements.txt") | named_in(
        REPO_ROOT / "tests" / "app" / "requirements.txt"
    )
    assert imported_under("tests", "tools", page=True) <= general | own | tests
