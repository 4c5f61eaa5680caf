"""The command line of the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT
from tools.benchmarking.options import MODES, arguments, build_config, class_names, parse, uses_tf32
from tools.benchmarking.sweep import PER

COCO = str(REPO_ROOT / "datasets" / "coco.json")


def test_sizes_and_changes():
    options = parse(["--device", "cpu", "--image-size", "480", "640", "SOLVER.BASE_LR", "0.1"])
    assert options.image_size == (480, 640)
    assert options.opts == ("SOLVER.BASE_LR", "0.1")
    swept = parse(["--sweep", "size", "--output", "a.json", "--points", "64", "96", "SEED", "3"])
    assert (swept.points, swept.opts) == ((64, 96), ("SEED", "3"))
    assert parse(["--image-size", "512"]).image_size == (512, 512)
    assert [parse(given).amp for given in ([], ["--amp"], ["--amp", "fp16"])] == [
        *("off", "bf16", "fp16")
    ]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--image-size", "1", "2", "3"], "--image-size: give one number, or height and width"),
        (["--image-size", "384", "0"], "--image-size 0: give 1 or more"),
        (["--image-size", "big"], "--image-size big: give integers"),
        (["--points", "-3"], "--points -3: give integers"),
        (["--classes", "0"], "--classes 0"),
        (["--runs", "0"], "--runs 0"),
        (["--warmup", "-1"], "--warmup -1"),
        (["MODEL.DEVICE", "cpu"], "use --device"),
        (["--output", "a.txt"], "ending in .json"),
        (["--sweep", "batch"], "--sweep needs --output"),
        (["--points", "3"], "--points needs --sweep"),
        (
            ["--sweep", "size", "--mode", "start", "--output", "a.json"],
            "cannot be combined with --mode",
        ),
        (["--sweep", "size", "--mode", "text", "--output", "a.json"], "only on the classes"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(given, complaint):
    with pytest.raises(UserError, match=complaint):
        parse(given)


def test_an_unknown_choice_is_one_line(capsys):
    with pytest.raises(SystemExit) as status:
        parse(["--mode", "tea"])
    assert status.value.code == 2
    assert "invalid choice: 'tea'" in capsys.readouterr().err.splitlines()[-1]


def test_the_points_of_a_sweep_get_every_option():
    given = ["--mode", "slide", "--classes", "7", "--image-size", "32", "64", "--amp", "bf16"]
    given += ["--tf32", "--threads", "3", "--runs", "2", "--device", "cpu"]
    options = parse(given)
    again = parse(arguments(options))
    assert again == options
    swept = parse([*given, "--sweep", "batch", "--output", "a.json", "--points", "1"])
    assert arguments(swept) == arguments(options)
    assert PER.keys() == {"classes", "batch", "size"}


@pytest.mark.parametrize("mode", MODES)
def test_the_config_of_a_mode(mode, tmp_path):
    cfg = build_config(parse(["--mode", mode, "--device", "cpu", "--batch", "3"]), tmp_path)
    head = cfg.MODEL.SEM_SEG_HEAD
    assert head.CLIP_WEIGHTS == "random"
    assert head.CLIP_FINETUNE == "oft_both"
    assert cfg.MODEL.DEVICE == "cpu"
    assert cfg.SOLVER.IMS_PER_BATCH == 3
    pooling = [1, 1] if mode in ("eval", "slide", "start") else [2, 2]
    assert pooling == head.POOLING_SIZES
    assert cfg.TEST.SLIDING_WINDOW is (mode == "slide")


def test_changes_go_before_the_modes_own(tmp_path):
    key = "MODEL.SEM_SEG_HEAD.POOLING_SIZES"
    options = parse(["--mode", "eval", "--device", "cpu", key, "[4, 4]"])
    assert build_config(options, tmp_path).MODEL.SEM_SEG_HEAD.POOLING_SIZES == [4, 4]


def test_the_classes_asked_for_are_trained_and_tested_on(tmp_path):
    cfg = build_config(parse(["--classes", "20", "--device", "cpu"]), tmp_path)
    head = cfg.MODEL.SEM_SEG_HEAD
    assert head.TRAIN_CLASS_JSON == head.TEST_CLASS_JSON
    assert json.loads(Path(head.TRAIN_CLASS_JSON).read_text()) == class_names(20, COCO)


def test_precision_and_compilation_are_set_in_the_config(tmp_path):
    cfg = build_config(parse(["--device", "cpu"]), tmp_path)
    assert not (cfg.SOLVER.AMP.ENABLED or cfg.MODEL.COMPILE)
    cfg = build_config(parse(["--device", "cpu", "--compile", "--amp"]), tmp_path)
    assert cfg.MODEL.COMPILE
    assert (cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE) == (True, "bfloat16")
    cfg = build_config(parse(["--device", "cpu", "--mode", "eval", "--amp", "fp16"]), tmp_path)
    assert (cfg.TEST.AMP.ENABLED, cfg.TEST.AMP.DTYPE) == (True, "float16")
    assert not cfg.SOLVER.AMP.ENABLED


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], True), (["MODEL.TF32", "False"], False), (["--tf32"], True), (["--no-tf32"], False)],
)
def test_tf32_follows_the_config_unless_an_option_says_otherwise(tmp_path, given, expected):
    options = parse(["--device", "cpu", *given])
    assert build_config(options, tmp_path).MODEL.TF32 is expected
    assert parse(arguments(options)).tf32 is options.tf32
    assert not uses_tf32(options)  # a CPU has no TF32
    assert uses_tf32(parse(["--device", "cuda", *given])) is expected


def test_class_names_are_real_while_there_are_enough():
    coco = json.loads(Path(COCO).read_text())
    assert class_names(20, COCO) == coco[:20]
    ade = json.loads((REPO_ROOT / "datasets" / "ade847.json").read_text())
    assert class_names(847, COCO) == [name.strip() for name in ade]
    made_up = class_names(900, COCO)
    assert len(set(made_up)) == 900
    assert made_up[12] == "class 12"
