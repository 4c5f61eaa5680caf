"""What trains in CLIP in each way of fine-tuning."""

from __future__ import annotations

import re

import pytest
import torch

from cat_seg.modeling.clip.adapters import FINE_TUNINGS, FineTuning
from tests.tiny import tiny_clip

ADAPTER = r"adapter\.(generators|slot_mixers|row_mixer)"
BLOCKS = r"\.transformer\.resblocks\.\d+\."
QV = BLOCKS + r"attn\.[qv]_proj\.weight"
# The dense last image block (of 3) has no use for queries and keys: no loss reaches them.
UNREACHED = r"image\.transformer\.resblocks\.2\.attn\.[qk]_proj\.(weight|bias)"

EXPECTED = {
    "frozen": r"(?!)",
    "attention": rf"(text|image){QV}",
    "full": rf"(text|image){BLOCKS}.*",
    "oft_both": ADAPTER,
    "oft": rf"{ADAPTER}|image{BLOCKS}attn\.(q|k|v|out)_proj\.(weight|bias)",
    "oft_qv": ADAPTER,
    "hyperbolic": r"adapter\.(text|image)",
    "hyperbolic_plus": r"adapter\.(shared|(slot|row)_(in|out))",
    "hyro": r"adapter\.(scaling|rotation)_(text|image)",
    "lora": r"adapter\.lora_(text|image)_[qv]_(down|up)",
}


def test_the_ways():
    assert set(FINE_TUNINGS) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_exactly_these_parameters_train(name):
    # HyRo's blocks of 256 channels do not fit a text tower of 128.
    clip = tiny_clip(name, **({"text_cfg__width": 256} if name == "hyro" else {}))
    training = {key for key, parameter in clip.named_parameters() if parameter.requires_grad}
    expected = {
        key
        for key, _ in clip.named_parameters()
        if re.fullmatch(EXPECTED[name], key) and not re.fullmatch(UNREACHED, key)
    }
    assert training == expected
    counts = {"frozen": 0, "attention": 9, "oft_both": 3, "oft": 23, "oft_qv": 3, "hyperbolic": 2}
    counts |= {"hyperbolic_plus": 5, "hyro": 4, "lora": 8}
    assert len(training) == counts.get(name, len(training))


@pytest.mark.parametrize("name", ["oft", "oft_qv"])
def test_h_clips_adapters_sit_in_both_towers_whatever_trains_besides_them(name):
    reference, clip = tiny_clip("oft_both").eval(), tiny_clip(name).eval()
    assert clip.state_dict().keys() == reference.state_dict().keys()
    clip.load_state_dict(reference.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        names = ("cat", "sky")
        text = reference.encode_text(names)
        assert torch.equal(clip.encode_text(names), text)
        dense = reference.encode_image(images).dense
        assert torch.equal(clip.encode_image(images).dense, dense)
        plain = clip.image(images, clip.image.transformer.attention_weights()).dense
    assert not torch.allclose(plain, dense, atol=1e-2)


def test_oft_sends_gradient_through_the_adapters_into_the_attention_below():
    clip = tiny_clip("oft")
    features = clip.encode_image(torch.randn(1, 3, 64, 64))
    features.dense.sin().sum().backward()
    for name, parameter in clip.image.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad and not name.endswith("k_proj.bias"):  # softmax cancels it
            assert parameter.grad.abs().sum() > 0, name
    assert clip.adapter.generators.grad.abs().sum() > 0


def test_full_trains_every_weight_of_the_blocks_and_nothing_else():
    clip = tiny_clip("full")
    still = {key for key, parameter in clip.named_parameters() if not parameter.requires_grad}
    last = "image.transformer.resblocks.2.attn."
    unreached = {f"{last}{p}_proj.{leaf}" for p in "qk" for leaf in ("weight", "bias")}
    outside = {
        "text.positional_embedding",
        "text.text_projection",
        "text.token_embedding.weight",
        "text.ln_final.weight",
        "text.ln_final.bias",
        "image.class_embedding",
        "image.positional_embedding",
        "image.proj",
        "image.conv1.weight",
        "image.ln_pre.weight",
        "image.ln_pre.bias",
        "image.ln_post.weight",
        "image.ln_post.bias",
    }
    assert still == unreached | outside


def test_an_unknown_way_is_one_line():
    with pytest.raises(
        ValueError, match=r"^fine_tuning must be one of .*oft_both.*'loRA'"
    ) as error:
        FineTuning.from_name("loRA")
    assert "\n" not in str(error.value)
