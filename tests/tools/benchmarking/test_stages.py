"""Attribution of a step to its stages, on a clock that moves only when told."""

from __future__ import annotations

import gc
import weakref
from importlib import import_module

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.tiny import tiny_model
from tools.benchmarking import stages
from tools.benchmarking.stages import FUNCTIONS, MODULES, OTHER, Part, Trace, observed, stage_of

ENHANCED = "configs/vitb_384_enhanced.yaml"


class Clock:
    """Seconds that pass only where work says so."""

    def __init__(self):
        self.now = 0.0

    def trace(self):
        return Trace(lambda: self.now, lambda start, stop: stop - start)


class _Work(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, clock, forward, backward):
        ctx.clock, ctx.seconds = clock, backward
        ctx.save_for_backward(x)
        clock.now += forward
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        assert ctx.saved_tensors  # which checkpointing computes again
        ctx.clock.now += ctx.seconds
        return gradient, None, None, None


class Inner(nn.Module):
    def __init__(self, clock, forward, backward):
        super().__init__()
        self.args = clock, forward, backward

    def forward(self, pair):
        return {"x": _Work.apply(pair[0], *self.args)}


class Outer(nn.Module):
    """Works before, between and after two inner stages."""

    def __init__(self, clock, recomputed=False):
        super().__init__()
        self.clock = clock
        self.recomputed = recomputed
        self.first = Inner(clock, 1, 10)
        self.second = Inner(clock, 2, 20)

    def forward(self, x):
        x = _Work.apply(x, self.clock, 100, 1000)
        x = self._call(self.first, x)
        x = _Work.apply(x, self.clock, 200, 2000)
        x = self._call(self.second, x)
        return _Work.apply(x, self.clock, 400, 4000)

    def _call(self, inner, x):
        if self.recomputed:
            return checkpoint(inner, (x, 0), use_reentrant=False)["x"]
        return inner((x, 0))["x"]


def step(model, trace, clock):
    x = torch.zeros(1, requires_grad=True)
    trace.begin("forward")
    clock.now += 0.5
    loss = model(x).sum()
    trace.begin("backward")
    loss.backward()
    trace.begin("optimizer")
    clock.now += 0.25
    trace.end()


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(stages, "MODULES", (("one", "first"), ("all of it", "")))
    monkeypatch.setattr(stages, "FUNCTIONS", ())


def test_forward_and_backward_go_to_the_stage_that_does_them(table):
    clock = Clock()
    model, trace = Outer(clock), clock.trace()
    with observed(model, trace):
        step(model, trace, clock)
    assert trace.spent() == {
        Part("forward", OTHER): 0.5,
        Part("forward", "all of it"): 702,
        Part("forward", "one"): 1,
        Part("backward", OTHER): 0,
        Part("backward", "all of it"): 7020,
        Part("backward", "one"): 10,
        Part("optimizer", OTHER): 0.25,
    }
    assert sum(trace.spent().values()) == clock.now


def test_what_is_computed_again_counts_in_the_backward_pass(table):
    clock = Clock()
    model, trace = Outer(clock, recomputed=True), clock.trace()
    with observed(model, trace):
        step(model, trace, clock)
    spent = trace.spent()
    assert spent[Part("forward", "one")] == 1
    assert spent[Part("backward", "one")] == 11
    assert sum(spent.values()) == clock.now


def test_functions_are_stages_while_they_are_observed(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stages, "MODULES", ())
    monkeypatch.setattr(stages, "FUNCTIONS", (("sum", __name__, "work"),))
    original, trace = work, clock.trace()
    with observed(nn.Module(), trace):
        assert work is not original
        x = torch.zeros(1, requires_grad=True)
        trace.begin("forward")
        loss = work(_Work.apply(x, clock, 1, 2), clock)
        trace.begin("backward")
        loss.backward()
        trace.end()
    assert work is original
    spent = trace.spent()
    assert (spent[Part("forward", OTHER)], spent[Part("forward", "sum")]) == (1, 3)
    assert (spent[Part("backward", OTHER)], spent[Part("backward", "sum")]) == (2, 4)


def test_a_function_that_is_gone_is_an_error(monkeypatch):
    monkeypatch.setattr(stages, "MODULES", (("one", "first"),))
    monkeypatch.setattr(stages, "FUNCTIONS", (("sum", __name__, "work"), ("gone", __name__, "no")))
    original, clock = work, Clock()
    model = Outer(clock)
    with pytest.raises(AttributeError, match="no"), observed(model, clock.trace()):
        pass
    assert work is original
    assert not model.first._forward_hooks


def work(x, clock):
    return _Work.apply(x, clock, 3, 4)


class Failing(nn.Module):
    """A stage that ends by an exception, as a recomputation does; then work outside of it."""

    def __init__(self, clock):
        super().__init__()
        self.first = nn.Module()
        self.first.forward = self.fail
        self.clock = clock

    def fail(self):
        self.clock.now += 1
        raise KeyError

    def forward(self):
        with pytest.raises(KeyError):
            self.first()
        with pytest.raises(KeyError):
            fail(self.clock)
        self.clock.now += 4


def fail(clock):
    clock.now += 2
    raise KeyError


def test_a_stage_that_fails_has_ended(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stages, "MODULES", (("one", "first"),))
    monkeypatch.setattr(stages, "FUNCTIONS", (("two", __name__, "fail"),))
    model, trace = Failing(clock), clock.trace()
    with observed(model, trace):
        trace.begin("forward")
        model()
        trace.end()
    found = {part.stage: seconds for part, seconds in trace.spent().items()}
    assert found == {"one": 1, "two": 2, OTHER: 4}


def test_the_graph_does_not_stay(table):
    clock = Clock()
    model, trace = Outer(clock), clock.trace()
    with observed(model, trace):
        trace.begin("forward")
        node = model(torch.zeros(1, requires_grad=True)).grad_fn
        alive = weakref.ref(node)
    del node
    gc.collect()
    assert alive() is None


def test_nothing_stays_on_the_model(table):
    clock = Clock()
    model = Outer(clock)
    with observed(model, clock.trace()):
        assert model._forward_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_stages_are_parts_of_the_model():
    model = tiny_model(base=ENHANCED)
    found = {stage_of(name) for name, _ in model.named_modules()} - {None}
    expected = {stage.format(layer) for stage, _ in MODULES for layer in range(2)}
    assert found == expected
    for _, module, function in FUNCTIONS:
        assert callable(getattr(import_module(module), function))


def test_numbers_come_from_the_path():
    assert stage_of("sem_seg_head.aggregator.layers.1.spatial") == "layer 1: spatial"
    assert stage_of("sem_seg_head.aggregator.layers.1.spatial.blocks") is None
    assert stage_of("sem_seg_head.aggregator.decoder2") == "decoder 2"
    assert stage_of("") is None
