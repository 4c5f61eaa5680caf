"""Containers, averaged weights and wrappers' prefixes of many training programs."""

from __future__ import annotations

import pytest
import torch

from cat_seg.checkpoint.reading import read_tensors
from cat_seg.checkpoint.state_dicts import find_weights
from cat_seg.errors import UserError
from tests.tiny import tiny_model

PLAIN = {"sem_seg_head.a": torch.zeros(2), "afr.b": torch.zeros(3)}
AVERAGE = {name: tensor + 1 for name, tensor in PLAIN.items()}


def prefixed(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def assert_found(content, expected, averaged, both, ask=False):
    found = find_weights(content, ask)
    assert (found.averaged, found.both) == (averaged, both)
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "model.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."),
        *("model._orig_mod.", "module.module.", "_orig_mod.model.module.", "net.", "network."),
    ],
)
@pytest.mark.parametrize("container", ["model", "state_dict", "model_state_dict", None])
def test_prefixes_of_wrappers(prefix, container):
    state = prefixed(prefix, PLAIN)
    content = state if container is None else {container: state, "optimizer": {"state": AVERAGE}}
    assert_found(content, PLAIN, False, False)


def test_a_compiled_part_within():
    state = {
        "sem_seg_head.aggregator._orig_mod.head.weight": torch.ones(1),
        "sem_seg_head._orig_mod.clip._orig_mod.x": torch.ones(1),
    }
    expected = {
        "sem_seg_head.aggregator.head.weight": torch.ones(1),
        "sem_seg_head.clip.x": torch.ones(1),
    }
    assert_found({"model": state}, expected, False, False)


def test_two_names_that_become_one_are_refused(tmp_path):
    torch.save({"module.a": torch.ones(1), "a": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"model\.pth contains a twice, as module\.a and a"):
        read_tensors(tmp_path / "model.pth")


def test_names_of_our_models_stay():
    state = tiny_model().state_dict()
    assert find_weights(state, False).tensors.keys() == state.keys()


AVERAGES = {
    "model_ema": AVERAGE,
    "ema": {"module": AVERAGE, "updates": 3},
    "ema_state": {"module": prefixed("module.", AVERAGE)},
    "state_dict_ema": AVERAGE,
    "ema_state_dict": {**prefixed("module.", AVERAGE), "steps": torch.tensor(5)},
    "ema_model": {"decay": torch.tensor(0.9), "model": AVERAGE},
    "params_ema": AVERAGE,
    "modelEMA": AVERAGE,
    "averaged_model": {**prefixed("module.", AVERAGE), "n_averaged": torch.tensor(5)},
    "swa_state_dict": {"state_dict": AVERAGE},
}


@pytest.mark.parametrize("key", AVERAGES)
def test_an_average_in_a_container(key):
    both = {"model": PLAIN, key: AVERAGES[key], "epoch": 3}
    assert_found(both, PLAIN, False, True)
    assert_found(both, AVERAGE, True, True, ask=True)
    alone = {key: AVERAGES[key], "epoch": 3}
    assert_found(alone, AVERAGE, True, False)
    assert_found(alone, AVERAGE, True, False, ask=True)


@pytest.mark.parametrize("prefix", ["model_ema.", "ema_model.", "ema.", "model_ema.module."])
def test_an_average_among_the_names(prefix):
    average = prefixed(prefix, AVERAGE) | {f"{prefix.split('.')[0]}.decay": torch.tensor(0.9)}
    both = {"state_dict": prefixed("model.", PLAIN) | average}
    assert_found(both, PLAIN, False, True)
    assert_found(both, AVERAGE, True, True, ask=True)
    assert_found({"state_dict": average}, AVERAGE, True, False)


def test_asked_for_but_not_there_are_the_weights_themselves():
    assert_found({"model": PLAIN, "schema": {"x": torch.ones(2)}}, PLAIN, False, False, ask=True)


@pytest.mark.parametrize("content", [{}, {"epoch": 1}, {"model_ema": {}}, {"model": {"a": "text"}}])
def test_nothing_there(content):
    assert find_weights(content, False) is None
