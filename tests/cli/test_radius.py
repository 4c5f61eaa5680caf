"""From checkpoints and runs to a picture and its numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cat_seg.analysis.radius import mean_and_spread, metric_names, text_radius
from cat_seg.cli.radius import main
from tests.tiny import CLASSES, share_tokenizers, tiny_cfg, tiny_model

FINE_TUNE = "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE"
WAYS = ("attention", "oft_both", "hyperbolic")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    share_tokenizers(monkeypatch)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Configs and checkpoints of three ways of fine-tuning, a class list, an image, metrics."""
    folder = tmp_path_factory.mktemp("place")
    for way in WAYS:
        cfg = tiny_cfg(folder, FINE_TUNE, way)
        (folder / f"{way}.yaml").write_text(cfg.dump())
        torch.save({"model": tiny_model(FINE_TUNE, way).state_dict()}, folder / f"{way}.pth")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "black.png")
    lines = [
        {"iteration": iteration, name: 7.0 - iteration / 100}
        for iteration in (0, 20)
        for measured in ("text/classes", "text/coco", "image")
        for name in metric_names(measured)
    ]
    (folder / "metrics.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def checkpoint(place, way, title=None):
    return ["--checkpoint", title or way, str(place / f"{way}.yaml"), str(place / f"{way}.pth")]


def draw(place, output, *arguments):
    main(["--output", str(output), *arguments])
    with Image.open(output) as picture:
        assert picture.format == "PNG"
    return json.loads(output.with_suffix(".json").read_text())


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line


def test_all_kinds_of_checkpoints_and_runs_in_one_figure(place, tmp_path):
    words = ["--vocabulary", str(place / "classes.json"), "--vocabulary", "bird, old tree"]
    found = draw(
        place,
        tmp_path / "new" / "radius.png",
        *("--checkpoint", "before", str(place / "attention.yaml"), "start"),
        *(part for way in WAYS for part in checkpoint(place, way)),
        *("--run", "hyperbolic", str(place / "metrics.json")),
        *words,
        *("--images", str(place / "black.png"), "--title", "tiny"),
    )
    assert list(found["checkpoints"]) == ["before", *WAYS]
    for way in WAYS:
        expected = text_radius(tiny_model(FINE_TUNE, way), CLASSES)
        radii = found["checkpoints"][way]
        assert list(radii) == ["text/classes", "text/bird, old tree", "image"]
        assert list(radii["text/classes"]["radius"]) == CLASSES
        values = list(radii["text/classes"]["radius"].values())
        assert values == pytest.approx(expected.tolist(), rel=1e-5)
        numbers = (radii["text/classes"]["mean"], radii["text/classes"]["std"])
        assert numbers == pytest.approx(mean_and_spread(expected), rel=1e-5)
        assert list(radii["text/bird, old tree"]["radius"]) == ["bird", "old tree"]
        assert set(radii["image"]) == {"mean", "std"}
    means = {way: radii["text/classes"]["mean"] for way, radii in found["checkpoints"].items()}
    assert len(set(means.values())) == 4
    # Of the run, only the requested vocabularies.
    assert set(found["runs"]["hyperbolic"]) == {"text/classes", "image"}
    assert found["runs"]["hyperbolic"]["image"]["iteration"] == [0, 20]


def test_runs_alone_need_no_model(place, tmp_path, monkeypatch):
    monkeypatch.setattr("cat_seg.cli.radius.load_model", lambda *_: pytest.fail("built"))
    metrics = str(place / "metrics.json")
    found = draw(place, tmp_path / "out.png", "--run", "a", metrics, "--run", "b", metrics)
    assert found["checkpoints"] == {}
    assert set(found["runs"]["b"]) == {"text/classes", "text/coco", "image"}


def test_config_changes_hold_for_every_model(place, tmp_path):
    arguments = [*checkpoint(place, "attention"), "--vocabulary", "cat"]
    one = draw(place, tmp_path / "one.png", *arguments)
    many = draw(
        place,
        tmp_path / "many.png",
        *arguments,
        *("--opts", "MODEL.PROMPT_ENSEMBLE_TYPE", "single", FINE_TUNE, "full"),
    )
    assert one["checkpoints"] == many["checkpoints"]  # full has the entries of attention
    with pytest.raises(SystemExit):
        draw(place, tmp_path / "out.png", *arguments, "--opts", FINE_TUNE, "oft_both")


def test_bad_arguments_are_one_line_each(place, tmp_path, capsys):
    out = ("--output", str(tmp_path / "out.png"))
    model = checkpoint(place, "attention")
    run = ("--run", "run", str(place / "metrics.json"))
    cat = ("--vocabulary", "cat")
    for expected, arguments in (
        ("--checkpoint TITLE", out),
        (".png", ("--output", str(tmp_path / "out.jpg"), *run)),
        ("--vocabulary", (*out, *model)),
        ("--images", (*out, *run, "--images", str(place / "black.png"))),
        ("'attention' is given twice", (*out, *model, *model, *cat)),
        ("'run' is given twice", (*out, *run, *run)),
        ("'cat' is given twice", (*out, *model, *cat, *cat)),
        ("dog.png", (*out, *model, *cat, "--images", "dog.png")),
        ("birds.json", (*out, *model, "--vocabulary", "birds.json")),
        ("none of the requested vocabularies", (*out, "--run", "run", only_coco(place), *cat)),
        ("nowhere.json", (*out, "--run", "run", "nowhere.json")),
        ("nowhere.yaml", (*out, "--checkpoint", "x", "nowhere.yaml", "start", *cat)),
        (
            "nowhere.pth",
            (*out, "--checkpoint", "x", str(place / "attention.yaml"), "nowhere.pth", *cat),
        ),
        (
            "HyperCLIP",
            (*out, "--checkpoint", "x", *map(str, mismatched(place)), *cat),
        ),
    ):
        assert expected in refused(capsys, *arguments), arguments
    assert not list(tmp_path.glob("out.*"))


def only_coco(place) -> str:
    path = place / "only_coco.json"
    line = {"iteration": 0, **dict.fromkeys(metric_names("text/coco"), 1.0)}
    path.write_text(f"{json.dumps(line)}\n")
    return str(path)


def mismatched(place):
    return place / "hyperbolic.yaml", place / "attention.pth"


def test_an_output_that_cannot_be_written_is_one_line(place, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "out.png"
    run = ("--run", "run", str(place / "metrics.json"))
    assert "--output" in refused(capsys, "--output", str(output), *run)
