"""The list of models that have a name."""

from __future__ import annotations

import json

import pytest

import cat_seg
from cat_seg.cli.models import main


def test_the_table_names_models_and_their_published_figures(capsys: pytest.CaptureFixture) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["name", "config", "A-847"]
    base = next(line for line in lines if line.startswith("cat-seg-base "))
    assert " ".join(base.split()[1:8]) == "configs/vitb_384.yaml 12.0 31.8 19.0 57.5 94.6 77.3"
    assert base.endswith("spaces/hamacojr/CAT-Seg-weights/model_base.pth")
    assert "arXiv 2303.11797" in lines[-1]


def test_json_has_all_that_is_recorded(capsys: pytest.CaptureFixture) -> None:
    assert main(["*-large", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["name"] == "cat-seg-large"
    assert (entry["repo_id"], entry["repo_type"]) == ("hamacojr/CAT-Seg-weights", "space")
    assert entry["sha256"] is None


def test_a_model_without_published_figures_has_dashes(capsys: pytest.CaptureFixture) -> None:
    assert main([]) == 0
    hyro = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("hyro-base "))
    assert hyro.split() == [
        "hyro-base",
        "configs/vitb_384_hyro.yaml",
        *["-"] * 8,  # six benchmarks, size and license
        "tmhoanggg/HyRo/model_base.pth",
    ]


def test_a_pattern_without_models_is_an_error(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sam*"])
    assert stop.value.code == 2
    assert "no model matches 'sam*'; there are cat-seg-base" in capsys.readouterr().err


def test_the_package_lists_them_too() -> None:
    assert cat_seg.list_models() == ["cat-seg-base", "cat-seg-large", "hyro-base"]
