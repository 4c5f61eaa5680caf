"""Compiling changes no result and no name; the graphs are run as they are, without a compiler."""

from __future__ import annotations

import sysconfig
from itertools import repeat

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn
from torch._dynamo.utils import counters

from cat_seg.engine import Trainer, builders
from cat_seg.engine.compiling import check_compiler, compile_aggregator
from cat_seg.engine.step import StepTrainer
from cat_seg.errors import UserError
from tests.tiny import answer, assert_same, batch, image, tiny_model

SETTINGS = ("MODEL.SEM_SEG_HEAD.CLIP_FINETUNE", "oft_both", "MODEL.SEM_SEG_HEAD.NUM_LAYERS", 1)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def losses_of(model: nn.Module, steps: int = 3) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    step_trainer = StepTrainer(model, repeat(batch()), optimizer, device_type="cpu")
    found = []
    with EventStorage() as storage:
        for _ in range(steps):
            step_trainer.run_step()
            found.append(storage.latest()["total_loss"][0])
    return found


def compiled_model() -> nn.Module:
    model = tiny_model(*SETTINGS)
    compile_aggregator(model, backend="eager")
    return model


def test_training_is_one_graph_with_the_same_losses():
    expected = losses_of(tiny_model(*SETTINGS))
    assert losses_of(compiled_model()) == pytest.approx(expected, rel=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_other_classes_and_images_give_the_same_answers():
    model, plain = compiled_model(), tiny_model(*SETTINGS)
    for names, images in (("abc", 1), ("abcd", 2)):
        inputs = [{"image": image(64, 64, seed)} for seed in range(images)]
        for one in (model, plain):
            one.set_vocabulary(list(names))
        assert_same(answer(model, *inputs), answer(plain, *inputs))
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]


def test_names_stay():
    assert compiled_model().state_dict().keys() == tiny_model(*SETTINGS).state_dict().keys()


@pytest.mark.parametrize("wanted", [False, True])
def test_the_trainer_compiles_where_it_is_asked_to(cfg, monkeypatch, wanted):
    compiled = []
    monkeypatch.setattr(builders, "compile_aggregator", compiled.append)
    cfg.MODEL.COMPILE = wanted
    model = Trainer.build_model(cfg)
    assert compiled == ([model] if wanted else [])


@pytest.mark.parametrize(("device", "named"), [("cpu", r"g\+\+"), ("cuda", "gcc or clang")])
def test_a_machine_without_a_compiler_is_told_what_to_install(monkeypatch, tmp_path, device, named):
    check_compiler(device)
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    message = (
        f"MODEL.COMPILE is True, but the compiler {named} was not found; install .*COMPILE to False"
    )
    with pytest.raises(UserError, match=message):
        check_compiler(device)


def test_a_compiler_that_the_environment_names_has_to_be_there(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="the compiler no-such-compiler was not found; "):
        compile_aggregator(tiny_model(*SETTINGS))


def test_python_without_headers_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match=r"Python\.h is missing; .* python3-dev"):
        check_compiler("cpu")
