"""hps-seg demo, up to the point where it needs gradio."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from cat_seg.cli.demo import default_model, find_examples, main, parse_args
from cat_seg.errors import UserError


def test_quickstart_model_is_the_default(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run `make quickstart`, .* or give --model"):
        default_model(tmp_path)
    for name in ("full_hyperbolic", "full"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_final.pth").touch()
        assert default_model(tmp_path) == tmp_path / name


def test_examples(tmp_path: Path) -> None:
    [photograph] = find_examples(None, is_quickstart=False)
    assert photograph.is_file()
    with pytest.raises(UserError, match="no images there"):
        find_examples(tmp_path, is_quickstart=False)
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    found = find_examples(tmp_path, is_quickstart=True)
    assert [path.name for path in found] == ["a.jpg", "b.png"]


def test_listens_on_this_machine_by_default() -> None:
    args = parse_args([])
    assert (args.host, args.port, args.share, args.model) == ("127.0.0.1", 7860, False, [])


def test_third_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_args(["--model", "a", "--model", "b", "c"])
    assert ended.value.code == 2
    assert "at most 2 models" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="gradio is here")
def test_missing_gradio_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--model", "a"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: the page needs gradio: run pip install 'gradio>=6,<7'\n"
    )
