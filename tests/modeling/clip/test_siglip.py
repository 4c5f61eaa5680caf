"""SigLIP's towers: dense features, prompts with padding, recomputation, other names."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from torch import Tensor

from cat_seg.errors import UserError
from cat_seg.modeling.clip import build_clip
from cat_seg.modeling.clip.adapters import FINE_TUNINGS
from cat_seg.utils.paths import REPO_ROOT
from tests.modeling.clip.shallow import built
from tests.modeling.clip.test_hub_tokenizer import WORDS, write_tokenizer

CONFIG = REPO_ROOT / "configs" / "quickstart_siglip.json"
NAMES = ["cat", "green grass", "sky, heaven"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return built(json.loads(CONFIG.read_text()), tmp_path_factory.mktemp("siglip"))[0]


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(theirs.state_dict(), path)
    return str(path)


def build(weights, fine_tuning="frozen", grid=(4, 4), **settings):
    return build_clip(str(CONFIG), weights, fine_tuning, "single", grid, **settings)


@torch.no_grad()
def test_pooling_of_every_patch_alone(theirs, file):
    images = torch.randn(2, 3, 64, 64)
    trunk = theirs.visual.trunk
    tokens = trunk.forward_features(images)
    found = build(file).encode_image(images)
    expected = torch.stack([trunk.attn_pool(tokens[:, i : i + 1]) for i in range(16)], dim=1)
    torch.testing.assert_close(found.dense, expected, atol=1e-5, rtol=1e-5)
    indices = build(file).image.taps
    middle = trunk.forward_intermediates(images, indices=indices, intermediates_only=True)
    for ours, one in zip(found.middle, middle, strict=True):
        torch.testing.assert_close(ours, one, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_image_of_equal_patches_has_its_pooled_feature_everywhere(theirs, file):
    """Without positions, that is: then all patches are the whole image."""
    ours = build(file)
    ours.image.positional_embedding.zero_()
    images = torch.randn(1, 3, 16, 16).repeat(1, 1, 4, 4)
    dense = ours.encode_image(images).dense
    tokens, _ = ours.image.transformer(ours.image.tokens(images), ours.attention_weights().image)
    pooled = ours.image.pool(ours.image.ln_post(tokens))
    torch.testing.assert_close(dense, pooled[:, None].expand_as(dense), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_text_is_open_clips(theirs, file):
    prompts = [f"A photo of a {name.split(',')[0]} in the scene" for name in NAMES]
    tokens = open_clip.SimpleTokenizer(context_length=16)(prompts)
    expected = theirs.encode_text(tokens, normalize=True)
    found = build(file).encode_text(NAMES)
    torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=1e-5)


def test_recomputation_changes_no_gradient(file):
    gradients = []
    for recompute in (False, True):
        clip = build(file, "attention", recompute=recompute)
        clip.encode_text(NAMES).square()[:, :, ::3].sum().backward()
        found = {n: p.grad for n, p in clip.text.named_parameters() if p.grad is not None}
        gradients.append(found)
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) == 4
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_many_prompts_are_encoded_a_few_at_a_time(file, monkeypatch):
    clip, sizes = build(file).eval(), []
    names = [f"thing {index}" for index in range(300)]
    original = clip.text._encode
    monkeypatch.setattr(
        clip.text,
        "_encode",
        lambda tokens, weights: (sizes.append(len(tokens)), original(tokens, weights))[1],
    )
    found = clip.encode_text(names)
    assert len(sizes) > 1 and sum(sizes) == 300
    torch.testing.assert_close(
        found[250:252], clip.encode_text(names[250:252]), atol=1e-5, rtol=1e-5
    )


def test_every_fine_tuning_is_built_or_names_its_key(file):
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = build(file).eval().encode_image(images).dense
    for name in FINE_TUNINGS:
        if name == "hyro":
            with pytest.raises(UserError, match=r"^MODEL\.ADAPTER\.HYRO\.ROTATION_SIZE.*siglip"):
                build(None, name)
            continue
        clip = build(file, name).eval()
        with torch.no_grad():
            found = clip.encode_image(images).dense
        if name != "hyperbolic_plus":  # which starts elsewhere, as published
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    attention = build(None, "attention").image.transformer.resblocks[-1].attn
    assert attention.q_proj.weight.requires_grad  # unlike CLIP's, the last block attends
    assert not attention.k_proj.weight.requires_grad


def test_all_that_trains_has_a_gradient(file):
    clip = build(file, "full").train()
    features = clip.encode_image(torch.randn(1, 3, 64, 64))
    text = clip.encode_text(NAMES)
    (features.dense[..., ::3].sum() + text[..., ::3].sum()).backward()
    trained = [p for p in clip.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None for p in trained)


TRANSFORMERS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "text.positional_embedding": "text.embeddings.position_embedding.weight",
    "pos_embed": "embeddings.position_embedding.weight",
    "ln_final.": "final_layer_norm.",
    "text_projection.": "head.",
    "patch_embed.proj.": "embeddings.patch_embedding.",
    "attn_pool.latent": "head.probe",
    "attn_pool.proj.": "head.attention.out_proj.",
    "attn_pool.norm.": "head.layernorm.",
    "attn_pool.mlp.": "head.mlp.",
    "transformer.resblocks.": "encoder.layers.",
    "blocks.": "encoder.layers.",
    ".norm1.": ".layer_norm1.",
    ".norm2.": ".layer_norm2.",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".attn.proj.": ".self_attn.out_proj.",
    ".attn.out_proj.": ".self_attn.out_proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}


def as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of open_clip's model as transformers' SiglipModel names them."""
    out = {"logit_scale": torch.ones(1), "logit_bias": torch.ones(1)}
    pool = "visual.trunk.attn_pool."
    for kind in ("weight", "bias"):
        parts = (state[f"{pool}q.{kind}"], state[f"{pool}kv.{kind}"])
        out[f"vision_model.head.attention.in_proj_{kind}"] = torch.cat(parts)
    for name, tensor in state.items():
        if name.startswith((f"{pool}q.", f"{pool}kv.", "logit")):
            continue
        for ours, theirs in TRANSFORMERS.items():
            name = name.replace(ours, theirs)
        name = name.replace("visual.trunk.norm.", "visual.trunk.post_layernorm.")
        name = name.replace("visual.trunk.", "vision_model.").replace("text.", "text_model.")
        tensor = (
            tensor[0] if name.endswith("position_embedding.weight") and tensor.ndim == 3 else tensor
        )
        for sign in (".attn.qkv.", ".attn.in_proj_"):
            stem, found, leaf = name.partition(sign)
            if found:
                for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                    out[f"{stem}.self_attn.{letter}_proj.{leaf}"] = part.clone()
                break
        else:
            out[name] = tensor
    return out


def test_weights_of_transformers(theirs, file, tmp_path):
    torch.save(as_transformers(theirs.state_dict()), tmp_path / "pytorch_model.bin")
    expected = build(file).state_dict()
    found = build(str(tmp_path / "pytorch_model.bin")).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_image_tower_alone_is_called_one(theirs, tmp_path):
    state = {n.removeprefix("visual.trunk."): t for n, t in theirs.state_dict().items()}
    path = tmp_path / "timm.pt"
    torch.save({n: t for n, t in state.items() if "text." not in n}, path)
    with pytest.raises(UserError, match="is an image tower of timm without a text tower"):
        build(str(path))


@torch.no_grad()
def test_a_tokenizer_of_its_own(tmp_path):
    """As in the published models: another vocabulary, and an end token alone."""
    config = json.loads(CONFIG.read_text())
    config["text_cfg"] |= {
        "vocab_size": len(WORDS),
        "hf_tokenizer_name": "owner/none",
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }
    write_tokenizer(tmp_path)
    theirs, _ = built(config, tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "clip.pt")
    clip = build_clip(
        str(tmp_path / "model.json"),
        str(tmp_path / "clip.pt"),
        "frozen",
        "imagenet_select",
        (4, 4),
        tokenizer=str(tmp_path),
    )
    tokens = clip.prompts.tokenize(NAMES)
    assert tokens.shape == (3, 8, 16) and clip.prompts.room == 15
    ids = [
        WORDS.index(word) for word in ["a", "photo", "of", "a", "cat", "in", "the", "scene", "</s>"]
    ]
    assert tokens[0, 7].tolist() == ids + [WORDS.index("</s>")] * (16 - len(ids))
    expected = theirs.encode_text(tokens.flatten(0, 1), normalize=True).unflatten(0, (3, 8))
    torch.testing.assert_close(clip.encode_text(NAMES), expected, atol=1e-5, rtol=1e-5)
    other = clip.prompts.replaced(("a {}",))
    assert other.room == 15 and other.tokenize(["cat"])[0, 0, 2] == WORDS.index("</s>")
