"""Steps run in parts against the same steps run at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cat_seg.modeling import chunking
from cat_seg.modeling.chunking import chunked, part_sizes, recomputed


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setitem(chunking.PART_ELEMENTS, "cpu", 24)


class Counted(nn.Module):
    """A step that notes the size of each part that it is given."""

    def __init__(self, dim):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 5)
        self.dim = dim
        self.sizes = []

    def forward(self, x):
        self.sizes.append(x.shape[self.dim])
        return self.linear(x).sin()


# 2 * 7 * 4 * 3 = 168 elements in parts of at most 24
@pytest.mark.parametrize(("dim", "sizes"), [(0, [1, 1]), (1, [1] * 7), (2, [1] * 4)])
@pytest.mark.parametrize("grad", [True, False])
def test_parts_make_up_the_whole(dim, sizes, grad):
    step = Counted(dim)
    x = torch.randn(2, 7, 4, 3)
    with torch.set_grad_enabled(grad):
        found = chunked(step, x, dim)
    assert step.sizes == sizes
    torch.testing.assert_close(found, step.linear(x).sin())


def test_parts_are_even():
    step = Counted(0)
    x = torch.randn(10, 2, 3)
    for grad in (True, False):
        step.sizes.clear()
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(chunked(step, x, 0), step.linear(x).sin())
        assert step.sizes == [4, 3, 3]


def test_parts_on_a_gpu_are_larger_where_activations_are_kept():
    device, elements = torch.device("cuda"), 171 * 2**20
    assert part_sizes(171, elements, device) == [16] * 6 + [15] * 5
    assert part_sizes(171, elements, device, kept=True) == [29] * 3 + [28] * 3


def test_what_fits_is_one_part():
    step = Counted(0)
    chunked(step, torch.randn(8, 3), 0)
    assert step.sizes == [8]


def kept_elements(compute):
    """Elements of the distinct tensors that autograd keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    return sum(kept.values()), result


@pytest.mark.parametrize("in_one", [True, False])
def test_recomputing_gives_the_same_gradients_and_keeps_less(monkeypatch, in_one):
    monkeypatch.setitem(chunking.PART_ELEMENTS, "cpu", 10**6 if in_one else 24)
    torch.manual_seed(0)
    step = nn.Sequential(nn.Linear(3, 50), nn.GELU(), nn.Linear(50, 3))
    x = torch.randn(16, 3, requires_grad=True)

    def gradients(recompute):
        kept, y = kept_elements(lambda: chunked(step, x, 0, recompute))
        return kept, torch.autograd.grad(y.square().sum(), [x, *step.parameters()])

    plain, expected = gradients(False)
    lean, found = gradients(True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert lean < plain / 4


def test_without_gradients_nothing_is_computed_twice():
    step = Counted(0)
    with torch.no_grad():
        recomputed(step, torch.randn(2, 3))
    assert len(step.sizes) == 1


def test_a_compiled_graph_repeats_no_step_for_parts_of_a_cache():
    step, x, graphs = nn.Linear(3, 5), torch.randn(10, 2, 3), []

    def note(graph, _):
        graphs.append(graph)
        return graph.forward

    with torch.no_grad():
        compiled = torch.compile(lambda x: chunked(step, x, 0), backend=note)
        torch.testing.assert_close(compiled(x), step(x))
    torch._dynamo.reset()
    [graph] = graphs
    assert [node.op for node in graph.graph.nodes].count("call_function") == 1
