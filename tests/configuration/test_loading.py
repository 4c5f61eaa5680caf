"""Configs from files and the command line, published ones among them."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from cat_seg.configuration.loading import leaves
from cat_seg.configuration.published import is_published
from cat_seg.engine import load_config
from cat_seg.errors import UserError
from cat_seg.modeling.clip.adapters import HyperbolicPlusSettings, HyRoSettings, LoRASettings
from cat_seg.modeling.clip.adapters.base import adapter_settings

PUBLISHED = json.loads(Path(__file__).with_name("published_configs.json").read_text())
HEAD = "MODEL.SEM_SEG_HEAD"


def write(folder: Path, text: str) -> str:
    (folder / "my.yaml").write_text(text)
    return str(folder / "my.yaml")


def test_file_then_overrides(tmp_path):
    path = write(tmp_path, "SOLVER: {MAX_ITER: 7, BASE_LR: 0.5}\nVERSION: 2\n")
    cfg = load_config(path, ["SOLVER.MAX_ITER", "8", "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE", "full"])
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (8, 0.5)
    assert cfg.MODEL.SEM_SEG_HEAD.CLIP_FINETUNE == "full"


def test_shipped_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/vitb_384_oft.yaml").MODEL.SEM_SEG_HEAD.CLIP_FINETUNE == "oft_both"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("SOLVER: {MAX_ITERS: 7}\n", r"SOLVER\.MAX_ITERS"),
        ("SOLVER: {MAX_ITER: many}\n", r"SOLVER\.MAX_ITER"),
        ("SOLVER: 7\n", "SOLVER"),
        ("- a list\n", "my.yaml"),
        ("SOLVER: {MAX_ITER: 7\n", "line 2"),
        ("_BASE_: missing.yaml\n", r"missing\.yaml"),
        ("_BASE_: my.yaml\n", "_BASE_ leads back to itself"),
        ("SOLVER: !!python/object/apply:os.getcwd []\n", "python/object"),
        ("VERSION: 9\n", "VERSION is 9"),
    ],
)
def test_a_bad_config_is_one_line_that_names_file_and_key(tmp_path, text, named):
    with pytest.raises(UserError, match=named) as error:
        load_config(write(tmp_path, text))
    assert "my.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["SOLVER.MAX_ITERS", "7"], r"SOLVER\.MAX_ITERS 7"),
        (["SOLVER.MAX_ITER.MORE", "7"], r"SOLVER\.MAX_ITER\.MORE 7"),
        (["SOLVER.MAX_ITER", "many"], r"SOLVER\.MAX_ITER many"),
        (["SEED", "1", "SOLVER.MAX_ITER"], "a value is missing: SEED 1 SOLVER.MAX_ITER"),
    ],
)
def test_a_bad_override_is_one_line_that_names_the_key(overrides, named):
    with pytest.raises(UserError, match=named) as error:
        load_config("", overrides)
    assert "\n" not in str(error.value)


def test_a_missing_config():
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file"):
        load_config("nowhere.yaml")


@pytest.mark.parametrize("late", [("--num-gpus", "2"), ("--resume",), ("--resume", "SEED", "1")])
def test_options_after_config_changes_are_named(late):
    with pytest.raises(UserError, match=f"{late[0]} comes after config overrides; put all options"):
        load_config("", ["SOLVER.MAX_ITER", "3", *late])


def nested(values: dict[str, Any]) -> dict[str, Any]:
    section: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        node = section
        for part in path:
            node = node.setdefault(part, {})
        node[name] = value
    return section


def effective(cfg) -> dict[str, Any]:
    return {key: json.loads(json.dumps(value)) for key, value in leaves(cfg)}


def messages(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_loads_and_its_keys_take_effect(tmp_path, log, name):
    cfg = load_config(write(tmp_path, yaml.safe_dump(nested(PUBLISHED[name]))))
    ours = effective(cfg)
    for key in PUBLISHED[name].keys() & ours.keys():
        assert ours[key] == PUBLISHED[name][key], key
    [line] = messages(log)
    assert line.startswith("Ignoring config keys that have no effect in this project: ")
    assert "\n" not in line
    named = line.split(": ")[1].split(", ")
    assert {"MODEL.SWIN.*", f"{HEAD}.PROMPT_DEPTH", "MODEL.PIXEL_MEAN"} <= set(named)
    assert len(named) == len(set(named))


def test_a_published_chain_of_files_loads(tmp_path, log):
    """As published: the base is for ViT-L, and sizes are written as tuples in text."""
    base = nested(PUBLISHED["CAT-Seg/vitl_336"] | {"SOLVER.BACKBONE_MULTIPLIER": 0.01})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(base | {"VERSION": 2}))
    small = """_BASE_: config.yaml
MODEL:
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  SEM_SEG_HEAD: {CLIP_PRETRAINED: "ViT-B/16", TEXT_GUIDANCE_DIM: 512, APPEARANCE_GUIDANCE_DIM: 512}
INPUT:
  MIN_SIZE_TRAIN: (384, )
  CROP:
    SIZE: (384, 384)
DATASETS:
  TRAIN: ("coco_2017_train_stuff_all_sem_seg",)
"""
    cfg = load_config(write(tmp_path, small))
    expected = PUBLISHED["CAT-Seg/vitb_384"]
    assert not {k for k, v in effective(cfg).items() if k in expected and v != expected[k]}
    assert len(messages(log)) == 1


@pytest.mark.parametrize(
    ("key", "value", "supported"),
    [
        (f"{HEAD}.PROMPT_DEPTH", 3, "0"),
        (f"{HEAD}.PROMPT_LENGTH", 4, "0"),
        (f"{HEAD}.ATTENTION_TYPE", "full", "'linear'"),
        (f"{HEAD}.USE_DEPTHWISE_SEPARABLE_CONV", True, "False"),
        (f"{HEAD}.TEXT_GUIDANCE_DIM", 768, "512"),
        (f"{HEAD}.APPEARANCE_GUIDANCE_DIM", 0, "512"),
        ("MODEL.PROMPT_ENSEMBLE", True, "False"),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "'TrainingSampler'"),
    ],
)
def test_a_published_value_that_is_not_supported_is_refused(tmp_path, key, value, supported):
    values = PUBLISHED["CAT-Seg/vitb_384"]
    path = write(tmp_path, yaml.safe_dump(nested(values)))
    for given in (
        (write(tmp_path, yaml.safe_dump(nested(values | {key: value}))),),
        (path, [key, str(value)]),
    ):
        with pytest.raises(UserError, match=f"{key} is {value!r}") as error:
            load_config(*given)
        assert supported in str(error.value)
        assert "\n" not in str(error.value)
        path = write(tmp_path, yaml.safe_dump(nested(values)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"{HEAD}.PROMPT_DEPTH", "0"),
        (f"{HEAD}.NUM_CLASSES", "171"),
        ("MODEL.SWIN.EMBED_DIM", "128"),
        ("MODEL.PIXEL_MEAN", "[123.675, 116.28, 103.53]"),
        ("DATASETS.VAL_ALL", "('coco_2017_val_all_stuff_sem_seg',)"),
        ("SOLVER.BACKBONE_MULTIPLIER", "0.0"),
    ],
)
def test_published_keys_are_taken_on_the_command_line_too(log, key, value):
    before = load_config("")
    assert effective(load_config("", [key, value])).keys() == effective(before).keys()
    [line] = messages(log)
    assert key.replace("EMBED_DIM", "*") in line


def test_the_last_value_of_a_published_key_counts(tmp_path):
    path = write(tmp_path, "{MODEL: {SEM_SEG_HEAD: {PROMPT_DEPTH: 3}}}")
    load_config(path, [f"{HEAD}.PROMPT_DEPTH", "0"])
    large = ["ViT-L/14@336px", f"{HEAD}.TEXT_GUIDANCE_DIM", "768"]
    load_config("", [f"{HEAD}.CLIP_PRETRAINED", *large])


def test_shipped_and_saved_configs_have_no_ignored_keys(tmp_path, log):
    names = ("vitb_384", "vitb_384_enhanced", "vitb_384_hyperbolic", "vitb_384_hyperclip_plus")
    for name in (*names, "vitb_384_hyro", "quickstart"):
        cfg = load_config(f"configs/{name}.yaml")
        load_config(write(tmp_path, cfg.dump()))
    assert not messages(log)


def test_integers_convert_to_floats_and_values_to_lists():
    cfg = load_config("", ["SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0", "INPUT.MIN_SIZE_TRAIN", "384"])
    assert repr(cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE) == "0.0"
    assert cfg.INPUT.MIN_SIZE_TRAIN == (384,)


def test_an_unknown_key_names_the_closest_one():
    with pytest.raises(
        UserError, match=r"unknown config key SOLVER\.MAX_ITERS; did you mean SOLVER\.MAX_ITER\?"
    ):
        load_config("", ["SOLVER.MAX_ITERS", "7"])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "it is empty"),
        (b"# nothing\n", "it is empty"),
        (b"just words\n", "it contains a str"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not a UTF-8 text file"),
        (b"SEED: 1\0\n", "cannot be read"),
        (b"[" * 1000, "nested too deeply|cannot be read"),
        (b"SEED: 2026-99-99\n", "cannot be read"),
        (b"SEED: !!bool maybe\n", "cannot be read"),
        (b"SEED: 1\nSEED: 2\n", "SEED is set twice, in line 1 and line 2"),
        (b"SOLVER:\n  MAX_ITER: 1\nSEED: 1\nSOLVER:\n  BASE_LR: 1.0\n", "SOLVER is .* line 1 .* 4"),
        (b"SOLVER:\n  MAX_ITER: 1\n  MAX_ITER: 2\n", r"SOLVER\.MAX_ITER is .* line 2 and line 3"),
        (b"SOLVER: &a\n  MORE: *a\n", "aliases"),
        (
            b"A: &a [x, x]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (c, c + 32, b", ".join([b"*%c" % (c + 31)] * 9))
                for c in range(ord("B"), ord("L"))
            ),
            "aliases",
        ),
        (b"SOLVER.MAX_ITER: 3\n", "nest it"),
        (b"SOLVER: {MAX_ITER: }\n", r"SOLVER\.MAX_ITER has no value"),
        (b"SOLVER: {MAX_ITER: [1, 2]}\n", r"SOLVER\.MAX_ITER is \[1, 2\]"),
        (b"INPUT: {MIN_SIZE_TRAIN: [a, b]}\n", r"INPUT\.MIN_SIZE_TRAIN is \['a', 'b'\]"),
        (b"_BASE_: {a: b}\n", "_BASE_ is"),
        (b"_BASE_: [1]\n", "_BASE_ is"),
        (b"_BASE_: nowhere.yaml\n", r"_BASE_ 'nowhere\.yaml' not found"),
        (b"_BASE_: .\n", "_BASE_ '.' not found"),
        (b"[" * 6000, "nested too deeply"),
        (b"SOLVER: " + b"{STEPS: [" * 60, "nested too deeply"),
        (b"SOLVER: " + b"- " * 5000, "cannot be read"),
        (b"# a comment\n" * 20_000, "more than 200000 characters"),
        (b"_BASE_: ~nobody/a.yaml\n", "_BASE_ '~nobody/a.yaml' not found"),
        (b"_BASE_: " + b"a" * 5000 + b"\n", "not found"),
        (b"1: 2\n", "unknown config key 1"),
        (b"VERSION: 1\n", "VERSION is 1"),
    ],
)
def test_a_file_that_is_not_a_config_is_one_line_with_its_name(tmp_path, content, named):
    (tmp_path / "my.yaml").write_bytes(content)
    with pytest.raises(UserError, match=named) as error:
        load_config(str(tmp_path / "my.yaml"))
    assert "my.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_loop_of_bases_and_an_error_in_a_base_name_the_files(tmp_path):
    (tmp_path / "base.yaml").write_text("_BASE_: my.yaml\n")
    with pytest.raises(UserError, match=r"base\.yaml: its _BASE_ leads back to itself"):
        load_config(write(tmp_path, "_BASE_: base.yaml\n"))
    (tmp_path / "base.yaml").write_text("SOLVER: {MAX_ITERS: 1}\n")
    with pytest.raises(UserError, match=r"base\.yaml: unknown config key SOLVER\.MAX_ITERS"):
        load_config(write(tmp_path, "_BASE_: base.yaml\n"))


def test_later_bases_override_earlier_ones(tmp_path):
    (tmp_path / "one.yaml").write_text("SOLVER: {MAX_ITER: 1, IMS_PER_BATCH: 2}\n")
    (tmp_path / "two.yaml").write_text("SOLVER: {MAX_ITER: 3}\n")
    solver = load_config(write(tmp_path, "_BASE_: [one.yaml, two.yaml]\nSEED: 4\n")).SOLVER
    assert (solver.MAX_ITER, solver.IMS_PER_BATCH) == (3, 2)


def test_a_config_anywhere_can_build_on_a_shipped_one(tmp_path):
    cfg = load_config(write(tmp_path, "_BASE_: vitb_384_enhanced.yaml\nSEED: 4\n"))
    assert cfg.MODEL.META_ARCHITECTURE == "EnhancedCATSeg" and cfg.SEED == 4


def test_a_base_beside_the_config_comes_before_a_shipped_one(tmp_path):
    (tmp_path / "vitb_384_enhanced.yaml").write_text("SOLVER: {MAX_ITER: 7}\n")
    cfg = load_config(write(tmp_path, "_BASE_: vitb_384_enhanced.yaml\n"))
    assert cfg.SOLVER.MAX_ITER == 7 and cfg.MODEL.META_ARCHITECTURE != "EnhancedCATSeg"


@pytest.mark.parametrize("given", ["('coco',)", "('coco')", "coco", '"coco"'])
def test_one_dataset_needs_no_trailing_comma(given):
    assert load_config("", ["DATASETS.TRAIN", given]).DATASETS.TRAIN == ("coco",)


def test_sections_of_adapters_take_their_own_keys_alone():
    lora = "MODEL.ADAPTER.LORA."
    changes = [f"{lora}ALPHA", "16", f"{lora}TEXT_PROJECTIONS", "[]", f"{lora}RANK", "4"]
    adapter = load_config("", changes).MODEL.ADAPTER.LORA
    assert (adapter.ALPHA, adapter.TEXT_PROJECTIONS, adapter.RANK) == (16.0, [], 4)
    unknown = r"unknown config key MODEL\.ADAPTER\.LORA\.RANKS; .*RANK\?"
    with pytest.raises(UserError, match=unknown):
        load_config("", [f"{lora}RANKS", "4"])
    with pytest.raises(UserError, match=r"MODEL\.ADAPTER\.LORA is a section"):
        load_config("", ["MODEL.ADAPTER.LORA", "4"])


def test_sections_of_other_adapters_take_any_key():
    adapter = load_config("", ["MODEL.ADAPTER.MINE.RANK", "4"]).MODEL.ADAPTER.MINE
    assert adapter.RANK == 4


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("HYPERBOLIC_PLUS", HyperbolicPlusSettings),
        ("HYRO", HyRoSettings),
        ("LORA", LoRASettings),
    ],
)
def test_sections_of_adapters_have_their_defaults(name, settings):
    with adapter_settings(settings, load_config("").MODEL, name) as found:
        assert found == settings()
    fields = {field.name.upper() for field in dataclasses.fields(settings)}
    assert set(load_config("").MODEL.ADAPTER[name]) == fields


def test_the_hyper_parameters_of_hyper_clip_plus_and_hyro():
    """As their published configs differ from HyperCLIP's."""
    keys = ("SOLVER.CLIP_MULTIPLIER", "TEST.EVAL_PERIOD", "DATALOADER.NUM_WORKERS")
    expected = {"hyperclip_plus": (0.1, 5000, 32), "hyro": (0.025, 999999, 16)}
    expected["hyperbolic"] = (0.075, 80000, 16)
    apart = {*keys, "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE"}
    hyper_clip = dict(leaves(load_config("configs/vitb_384_hyperbolic.yaml")))
    for name, own in expected.items():
        values = dict(leaves(load_config(f"configs/vitb_384_{name}.yaml")))
        assert tuple(values[key] for key in keys) == own
        assert {k for k in values if values[k] != hyper_clip[k]} <= apart


def test_keys_of_own_datasets_keep_their_types(tmp_path):
    node = "{IMAGES: a, LABELS: b, CLASSES: c.json, IGNORE_LABEL: 7}"
    path = write(tmp_path, f"DATASETS: {{CUSTOM: {{mine: {node}}}}}\n")
    mine = load_config(path).DATASETS.CUSTOM.mine
    assert (mine.IGNORE_LABEL, mine.LABELS) == (7, "b")
    changes = ["DATASETS.CUSTOM.mine.IGNORE_LABEL", "9", "DATASETS.CUSTOM.mine.LABELS", "'d'"]
    mine = load_config(path, changes).DATASETS.CUSTOM.mine
    assert (mine.IGNORE_LABEL, mine.LABELS, mine.IMAGES) == (9, "d", "a")


BAD = {
    int: ["-1000000", "1.5", "'text'", "[1]", "None", "''"],
    float: ["-1.0", "float('nan')", "text", "[]", "None"],
    bool: ["1", "'yes'", "None", "[True]"],
    str: ["1.5", "[1]", "None"],
    tuple: ["()", "(-1,)", "('a', 1)", "None", "{}"],
}


def test_every_bad_value_of_every_key_is_one_line_or_right():
    """Never another error, and a number below zero passes only where it means something."""
    defaults = load_config("")
    below_zero = set()
    read = ((key, value) for key, value in leaves(defaults) if not is_published(key))
    for key, value in read:
        kind = tuple if isinstance(value, list | tuple) else type(value)
        for bad in BAD.get(kind, ["text", "[1]", "-1"]):
            try:
                cfg = load_config("", [key, bad])
            except UserError as error:
                assert key in str(error), (key, bad)
                assert "\n" not in str(error)
                continue
            if kind in (int, float) and bad.startswith("-"):
                below_zero.add(key)
            found = dict(leaves(cfg))[key]
            assert value is None or type(found) is type(value) or key == "DATASETS.CUSTOM", (
                key,
                bad,
            )
    assert below_zero == {
        "INPUT.SIZE_DIVISIBILITY",  # nothing is padded
        "MODEL.HYPERSPHERICAL.AFR_BIAS_INIT",
        "MODEL.SEM_SEG_HEAD.IGNORE_VALUE",  # compared with the dataset's
        "SEED",  # one is drawn
        *HEAD_SIZES,
    }


# Checked where the model is built, with what they have to go with.
HEAD_SIZES = {
    f"{HEAD}.{name}"
    for name in ("HIDDEN_DIMS", "NUM_HEADS", "NUM_LAYERS", "PAD_LEN", "WINDOW_SIZES")
}


@pytest.mark.parametrize(
    ("key", "value", "more"),
    [
        ("INPUT.MIN_SIZE_TRAIN", "()", []),
        ("INPUT.MIN_SIZE_TRAIN", "(384, -1)", []),
        ("INPUT.MIN_SIZE_TRAIN", "(9, 3)", ["INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"]),
        ("INPUT.MAX_SIZE_TRAIN", "0", []),
        ("INPUT.MAX_SIZE_TEST", "-1", []),
        ("INPUT.MIN_SIZE_TEST", "-1", []),
        ("INPUT.CROP.SIZE", "[0, 384]", CROP := ["INPUT.CROP.ENABLED", "True"]),
        ("INPUT.CROP.SIZE", "[384]", CROP),
        ("INPUT.CROP.SIZE", "[1.5, 0.5]", CROP),
        ("INPUT.CROP.SIZE", "[0.5, 0.5]", [*CROP, "INPUT.CROP.TYPE", "absolute"]),
        ("INPUT.CROP.SIZE", "[9, 3]", [*CROP, "INPUT.CROP.TYPE", "absolute_range"]),
        ("SOLVER.IMS_PER_BATCH", "0", []),
        ("SOLVER.MAX_ITER", "0", []),
        ("SOLVER.CHECKPOINT_PERIOD", "-5", []),
        ("TEST.EVAL_PERIOD", "-1", []),
        ("TEST.IMS_PER_BATCH", "0", []),
        ("SOLVER.BASE_LR", "0", []),
        ("SOLVER.BASE_LR", "1e999", []),
        ("SOLVER.BASE_LR_END", "1.0", []),
        ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "-0.1", []),
        ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", "0", []),
        ("SOLVER.OPTIMIZER", "ADAN", []),
        ("SOLVER.STEPS", "(20, 10)", []),
        ("SOLVER.WEIGHT_DECAY_BIAS", "text", []),
        ("MODEL.CLIP_PIXEL_STD", "[1.0, 1.0, 0.0]", []),
        ("MODEL.CLIP_PIXEL_MEAN", "[1.0]", []),
        ("MODEL.MASK_FORMER.SIZE_DIVISIBILITY", "0", []),
        ("SEED", "4294967296", []),
        ("OUTPUT_DIR", "''", []),
        ("TEST.EXPECTED_RESULTS", "[['sem_seg', 'mIoU', 50]]", []),
    ],
)
def test_an_invalid_value_is_one_line_with_its_key(key, value, more):
    with pytest.raises(UserError, match=key) as error:
        load_config("", [*more, key, value])
    assert "\n" not in str(error.value)
