"""Norms in half precision: on a GPU, as fake tensors, in that precision; on a CPU, PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cat_seg.modeling.norms import GroupNorm, LayerNorm

NORMS = {"layer": lambda: LayerNorm(8), "group": lambda: GroupNorm(2, 8)}
PLAIN = {"layer": lambda: nn.LayerNorm(8), "group": lambda: nn.GroupNorm(2, 8)}
kinds = pytest.mark.parametrize("kind", NORMS)


class Types(TorchDispatchMode):
    """Keeps the types of the tensors that go into norms."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "norm" in function.overloadpacket.__name__:
            self.seen += [x.dtype for x in args if isinstance(x, torch.Tensor)]
        return function(*args, **(kwargs or {}))


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_input_and_weights_reach_a_gpus_kernel_in_the_inputs_type(kind, dtype):
    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        norm, x = NORMS[kind](), torch.empty(2, 8, 8, dtype=dtype)
        with Types() as types:
            assert norm(x).dtype == dtype
    assert types.seen == [dtype] * 3


@kinds
@pytest.mark.parametrize("amp", [False, True])
def test_a_cpu_computes_what_pytorch_computes(kind, amp):
    torch.manual_seed(0)
    norm, plain = NORMS[kind](), PLAIN[kind]()
    for p in norm.parameters():
        nn.init.normal_(p)
    plain.load_state_dict(norm.state_dict())
    x = torch.randn(2, 8, 8, dtype=torch.bfloat16 if amp else torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        assert torch.equal(norm(x), plain(x))
