from __future__ import annotations

import logging

import pytest
from detectron2.modeling import build_model
from detectron2.utils import comm

from cat_seg.data import load_vocabulary
from cat_seg.errors import UserError
from cat_seg.evaluation import using_vocabulary
from cat_seg.modeling.clip.prompts import MOST_LISTS, Prompts
from tests.tiny import CLASSES, answer, batch, tiny_cfg, tiny_model

LENGTH = 77
LONG = "green " * 80


@pytest.fixture
def warned(caplog):
    """Check names and return the warnings."""
    caplog.set_level(logging.WARNING)

    def check(names, prompts=None, source="list"):
        caplog.clear()
        (prompts or Prompts("single", LENGTH)).check(names, source)
        return [record.getMessage() for record in caplog.records]

    return check


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("red", "RED"),
        ("red wall, wall", "red wall, fence"),
        ("fire hydrant", "fire  hydrant"),
        ("salt &amp; pepper", "salt & pepper"),
        ("café", "cafe\u0301"),
        ("ｒｅｄ", "red"),
    ],
)
def test_names_that_are_equal_to_clip_are_warned_of(warned, one, other):
    [line] = warned(["blue", one, other])
    assert line.startswith("list: CLIP cannot tell 2 of the 3 classes apart")
    assert f"{one!r} (1) = {other!r} (2)" in line
    assert "blue" not in line


def test_names_that_differ_are_not_warned_of(warned):
    assert warned(["red", "reds", "a red", "wall, red", "red-", "rot"]) == []


def test_one_line_tells_of_all_equal_names(warned):
    [line] = warned(load_vocabulary("datasets/ade847.json"))
    assert line.startswith("list: CLIP cannot tell 19 of the 847 classes apart")
    assert "'patio, terrace'" in line
    many = [f"{word} {i}" for i in range(200) for word in ("a thing", "A thing", "A THING")]
    [line] = warned(many)
    assert "and 188 more" in line
    assert len(line) < 1200


@pytest.mark.parametrize("ensemble", ["single", "imagenet"])
def test_a_name_that_is_cut_is_warned_of(warned, ensemble):
    [line] = warned(["red", LONG + "chair"], Prompts(ensemble, LENGTH))
    assert "1 of the 2 classes are truncated to CLIP's limit of 77 tokens" in line
    assert "'green green" in line and "(1)" in line
    assert len(line) < 300


def test_what_just_fits_is_not_cut(warned):
    fits = "a " * (LENGTH - 2 - len(["a", "photo", "of", "a", "in", "the", "scene"]))
    assert warned([fits]) == []
    assert len(warned([fits + "a"])) == 1


@pytest.mark.parametrize("ensemble", ["single", "imagenet"])
def test_names_that_the_cut_makes_equal_are_refused(ensemble):
    prompts = Prompts(ensemble, LENGTH)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^names 1 .* and 2 .* the same prompt.*77") as e:
            prompts.check(["red", LONG + "chair", LONG + "table"], "list")
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 300


def test_long_names_that_are_equal_anyway_are_warned_of(warned):
    assert len(warned([LONG + "chair", LONG.upper() + "chair"])) == 2


def test_a_list_is_warned_of_once_and_by_one_process(warned, monkeypatch):
    prompts = Prompts("single", LENGTH)
    assert len(warned(["red", "Red"], prompts)) == 1
    assert warned(["red", "Red"], prompts, "another") == []
    assert len(warned(["red", "RED"], prompts)) == 1
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert warned(["red", "Red"]) == []


def test_few_lists_are_remembered():
    prompts = Prompts("single", LENGTH)
    for index in range(3 * MOST_LISTS):
        prompts.check([f"red {index}"], "list")
        prompts.arranged([f"red {index}"])
    assert len(prompts._checked) <= MOST_LISTS
    assert len(prompts._arranged) <= MOST_LISTS


@pytest.mark.parametrize(
    "name",
    [
        "<start_of_text>",
        "a <end_of_text> b",
        "<END_OF_TEXT>",
        "&lt;end_of_text&gt;",
        "&amp;lt;start_of_text&amp;gt;",
        "＜end_of_text＞",
    ],
)
def test_special_tokens_in_names_are_text(name):
    prompts = Prompts("single", LENGTH)
    tokens = prompts.tokenize([name])[0, 0].tolist()
    start, end = 49406, 49407
    assert tokens[0] == start and tokens.count(start) == 1
    assert tokens.count(end) == 1
    last = tokens.index(end)
    assert not any(tokens[last + 1 :])
    scene = prompts.tokenize(["x"])[0, 0].tolist()
    assert tokens[last - 3 : last] == scene[scene.index(end) - 3 : scene.index(end)]
    assert prompts.encode("<end_of_text>") == prompts.encode("< end_of_text >")


def test_models_check_what_they_are_asked_for(caplog):
    model = tiny_model()
    with pytest.raises(UserError, match=r"^the vocabulary: names 0 .* and 1 .* the same prompt"):
        model.set_vocabulary([LONG + "chair", LONG + "table"])
    assert list(model.eval().vocabulary) == CLASSES
    model.set_vocabulary(["purple", "Purple"])
    assert "'purple' (0) = 'Purple' (1)" in caplog.text


def test_thousands_of_names_are_checked(warned):
    assert warned([f"thing {i}" for i in range(5000)]) == []


def test_the_lists_of_a_config_are_checked_once(tmp_path, caplog):
    for name in ("train", "test"):
        (tmp_path / f"{name}.json").write_text(f'["{name}", "{name.upper()}"]')
    keys = [f"MODEL.SEM_SEG_HEAD.{name.upper()}_CLASS_JSON" for name in ("train", "test")]
    files = [str(tmp_path / f"{name}.json") for name in ("train", "test")]
    model = build_model(tiny_cfg(tmp_path, keys[0], files[0], keys[1], files[1])).eval()
    with using_vocabulary(model, ["train", "TRAIN"]):
        answer(model, *batch((32, 32), (32, 32)))
    told = [
        record.getMessage() for record in caplog.records if record.name.endswith("prompt_check")
    ]
    assert [line.partition(": CLIP cannot tell 2 of the 2")[0] for line in told] == files
