"""The files of a Hugging Face Space, and the container's."""

from __future__ import annotations

import re

import yaml

from cat_seg.utils.paths import REPO_ROOT

SPACES = REPO_ROOT / "spaces"


def requirements(*names: str) -> list[str]:
    lines = [line for name in names for line in (REPO_ROOT / name).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_space_installs_what_the_page_needs() -> None:
    wanted = requirements("requirements.txt", "cat_seg/app/requirements.txt")
    assert requirements("spaces/requirements.txt") == wanted


def test_front_matter_of_the_space() -> None:
    _, front, _ = (SPACES / "README.md").read_text().split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["sdk"] == "gradio"
    assert (SPACES / values["app_file"]).is_file()
    assert f"gradio>={values['sdk_version'].split('.')[0]},<" in "".join(
        requirements("spaces/requirements.txt")
    )
    assert values["python_version"] in ("3.10", "3.11", "3.12")
    assert len(values["short_description"]) <= 60


def test_container_copies_what_it_is_given() -> None:
    allowed = [
        line[1:]
        for line in (REPO_ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert all(list(REPO_ROOT.glob(pattern)) for pattern in allowed)
    sources = re.findall(r"^COPY (.+) \S+$", (REPO_ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for source in " ".join(sources).split():
        assert source == "." or any(
            source == pattern or source.startswith(f"{pattern}/") for pattern in allowed
        ), source
