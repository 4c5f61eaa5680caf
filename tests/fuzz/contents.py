"""Strategies for files that are sound, with contents that are odd."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from detectron2.config import get_cfg
from hypothesis import strategies as st

from cat_seg import add_cat_seg_config
from cat_seg.configuration.loading import leaves
from tests.fuzz.seeds import state_dicts

File = tuple[str, bytes]

NUMBERS = st.one_of(
    st.integers(-2, 3),
    st.floats(width=32),
    st.sampled_from([2**31, 2**64, -(2**63), 1e300, True, False, None]),
)
TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["", "cpu", "1e-3", "[1", "(1, 2)", "()", "a.json", "~", "~0", "\0", "%s", "{}"]
    ),
)
VALUES = st.recursive(
    st.one_of(NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


def class_lists() -> st.SearchStrategy[File]:
    """JSON and text files of odd names, and JSON that is not a list."""
    names = st.lists(st.text(max_size=8), max_size=6)
    return st.one_of(
        st.one_of(VALUES, names).map(lambda value: ("odd.json", json.dumps(value).encode())),
        names.map(lambda lines: ("odd.txt", "\n".join(lines).encode("utf-8", "surrogatepass"))),
    )


def configs() -> st.SearchStrategy[File]:
    """YAML files that set known keys, and keys beside and below them, to any values."""
    known = sorted(key for key, _ in leaves(add_cat_seg_config(get_cfg())))
    own = [f"DATASETS.CUSTOM.{name}" for name in ("field", "field.IMAGES", "field.CLASSES", "a b")]
    keys = st.one_of(
        st.sampled_from(known),
        st.sampled_from(own),
        st.sampled_from(known).map(lambda key: key.rpartition(".")[0] or key),
        st.tuples(st.sampled_from(known), TEXTS).map(".".join),
        st.just("_BASE_"),
    )
    return st.dictionaries(keys, VALUES, max_size=4).map(
        lambda values: ("odd.yaml", yaml.safe_dump(_nested(values), allow_unicode=True).encode())
    )


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    section: dict[str, Any] = {}
    for key, value in values.items():
        node = section
        *path, name = key.split(".")
        for part in path:
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        node[name] = value
    return section


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Small tensors of any type, layout and shape."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    kinds = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
    tensor = torch.ones(shape, dtype=draw(st.sampled_from(kinds)))
    form = draw(st.sampled_from(["plain", "plain", "nan", "view", "sparse", "meta", "quantized"]))
    if form == "nan" and tensor.is_floating_point():
        return tensor * float("nan")
    if form == "view" and tensor.ndim:
        return tensor.expand(2, *shape).transpose(0, -1)
    if form == "sparse" and tensor.ndim:
        return tensor.to_sparse()
    if form == "meta":
        return tensor.to("meta")
    if form == "quantized" and tensor.dtype == torch.float32:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are deprecated
            return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)
    return tensor


def checkpoints() -> st.SearchStrategy[File]:
    """State dicts of known names and others, with tensors and what is none, in odd places."""
    names = sorted({name for state in state_dicts() for name in state})
    numbers = st.sampled_from([np.float64(1), np.int64(3)])
    odd = st.one_of(tensors(), tensors(), VALUES, numbers)
    prefixes = st.sampled_from(["", "", "", "module.", "_orig_mod.", "model."])
    keys = st.one_of(st.tuples(prefixes, st.sampled_from(names)).map("".join), TEXTS, NUMBERS)
    state = st.dictionaries(keys, odd, max_size=5)
    parts = st.sampled_from(["model", "state_dict", "model_ema", "ema", "rng", "optimizer"])
    content = st.one_of(state, st.dictionaries(parts, st.one_of(state, odd), max_size=3), odd)
    named = st.dictionaries(st.sampled_from(names), tensors().map(_plain), max_size=3)
    return st.one_of(
        content.map(lambda found: ("odd.pth", _saved(found))),
        named.map(lambda found: ("odd.safetensors", safetensors.torch.save(found))),
    )


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    is_plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    return tensor.clone().contiguous() if is_plain else torch.ones(2)


def _saved(content: Any) -> bytes:
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


CONTENTS = {"classes": class_lists, "config": configs, "checkpoint": checkpoints}
