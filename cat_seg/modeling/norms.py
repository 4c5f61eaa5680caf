"""Norm layers that keep the type of their input under autocast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm, in the type of its input under autocast on a GPU as well.

    Autocast would store input and output in float32. PyTorch's kernel takes half precision with
    weights of the same type, and computes in float32. On a CPU, autocast does not change norms.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not _is_half_on_gpu(x):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm, in the type of its input under autocast on a GPU; see `LayerNorm`.

    Here the kernel also rounds the mean and the deviation of a group to that type.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not _is_half_on_gpu(x):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)


def _is_half_on_gpu(x: Tensor) -> bool:
    return x.device.type != "cpu" and x.dtype in (torch.float16, torch.bfloat16)
