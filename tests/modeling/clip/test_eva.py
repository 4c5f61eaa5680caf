"""EVA02-CLIP's image tower: dense features, positions, fine-tuning, EVA-CLIP's names."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from timm.layers import RotaryEmbeddingCat

from cat_seg.errors import UserError
from cat_seg.modeling.clip import build_clip
from cat_seg.modeling.clip.adapters import FINE_TUNINGS
from cat_seg.utils.paths import REPO_ROOT
from tests.modeling.clip.shallow import built

CONFIG = REPO_ROOT / "configs" / "quickstart_eva02.json"
HEADS, WIDTH = 4, 128


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return built(json.loads(CONFIG.read_text()), tmp_path_factory.mktemp("eva"))[0]


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(theirs.state_dict(), path)
    return str(path)


def build(weights, dense="value", grid=(4, 4), fine_tuning="frozen"):
    return build_clip(str(CONFIG), weights, fine_tuning, "single", grid, dense=dense)


def before_last(theirs, images):
    """Tokens before the last block."""
    found = []
    handle = theirs.visual.trunk.blocks[-1].register_forward_pre_hook(
        lambda module, args: found.append(args[0])
    )
    theirs.visual(images)
    handle.remove()
    return found[0]


@torch.no_grad()
def test_value_path(theirs, file):
    images = torch.randn(2, 3, 64, 64)
    trunk, x = theirs.visual.trunk, before_last(theirs, images)
    block = trunk.blocks[-1]
    x = x + block.attn.proj(block.attn.norm(block.attn.v_proj(block.norm1(x))))
    expected = trunk.head(trunk.norm(x + block.mlp(block.norm2(x))))
    found = build(file).encode_image(images)
    torch.testing.assert_close(found.dense, expected, atol=1e-5, rtol=1e-5)
    assert found.dense.shape == (2, 17, 64)
    assert [m.shape for m in found.middle] == [(2, WIDTH, 4, 4)] * 2


@torch.no_grad()
def test_correlative_attention(theirs, file):
    """DeCLIP's CSA: no scale, no rotary positions, no residual, no MLP, unit length."""
    images = torch.randn(2, 3, 64, 64)
    trunk, x = theirs.visual.trunk, before_last(theirs, images)
    attention = trunk.blocks[-1].attn
    x = trunk.blocks[-1].norm1(x)
    q, k, v = (
        projection(x).reshape(2, 17, HEADS, -1).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixing = (q @ q.mT).softmax(-1) + (k @ k.mT).softmax(-1)
    x = attention.proj(attention.norm((mixing @ v).transpose(1, 2).reshape(2, 17, WIDTH)))
    expected = F.normalize(trunk.head(trunk.norm(x[:, 1:])), dim=-1)
    found = build(file, "csa").encode_image(images)
    torch.testing.assert_close(found.dense, expected, atol=1e-5, rtol=1e-5)
    assert found.dense_map().shape == (2, 64, 4, 4)


@torch.no_grad()
@pytest.mark.parametrize("grid", [(6, 6), (3, 5)])
def test_positions_of_another_grid(theirs, file, grid):
    """Bicubic resizing of the embedding; rotary positions that span the same range."""
    ours = build(file, grid=grid)
    images = torch.randn(1, 3, *ours.input_size)
    trunk = theirs.visual.trunk
    cls, patches = trunk.pos_embed[:, :1], trunk.pos_embed[:, 1:]
    square = patches.reshape(1, 4, 4, WIDTH).permute(0, 3, 1, 2)
    resized = F.interpolate(square, grid, mode="bicubic", align_corners=False)
    x = trunk.patch_embed.proj(images).flatten(2).transpose(1, 2)
    x = torch.cat([trunk.cls_token + cls, x + resized.flatten(2).transpose(1, 2)], dim=1)
    rope = RotaryEmbeddingCat(
        WIDTH // HEADS, in_pixels=False, feat_shape=list(grid), ref_feat_shape=[16, 16]
    )
    x = trunk.blocks[0](x, rope=rope.get_embed())
    expected = x[:, 1:].transpose(1, 2).reshape(1, WIDTH, *grid)
    assert ours.image.taps[0] == 0
    found = ours.encode_image(images).middle[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_attention_trains_queries_and_values():
    for dense, last in (("value", ["v_proj"]), ("csa", ["q_proj", "v_proj"])):
        clip = build(None, dense, fine_tuning="attention")
        trained = [n for n, p in clip.image.named_parameters() if p.requires_grad]
        rows = [n.split(".")[-2] for n in trained if n.startswith("transformer.resblocks.3.")]
        assert rows == last
        assert len(trained) == 2 * 3 + len(last)
        assert all(n.endswith("_proj.weight") for n in trained)


@pytest.mark.parametrize("dense", ["value", "csa"])
def test_all_that_trains_has_a_gradient(file, dense):
    """Distributed training waits for the gradient of every trainable parameter."""
    clip = build(file, dense, fine_tuning="full").train()
    features = clip.encode_image(torch.randn(1, 3, 64, 64))
    (features.dense[..., ::3].sum() + sum(m.sum() for m in features.middle)).backward()
    trained = {n: p for n, p in clip.image.named_parameters() if p.requires_grad}
    assert trained and all(p.grad is not None for p in trained.values())


def test_every_fine_tuning_is_built_or_names_its_key(file):
    """Adapters start at the identity; HyRo's rotations need 256 channels."""
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = build(file).eval().encode_image(images).dense
    for name in FINE_TUNINGS:
        if name == "hyro":
            with pytest.raises(UserError, match=r"^MODEL\.ADAPTER\.HYRO\.ROTATION_SIZE.*eva02"):
                build(None, fine_tuning=name)
            continue
        clip = build(file, fine_tuning=name).eval()
        with torch.no_grad():
            found = clip.encode_image(images).dense
        if name != "hyperbolic_plus":  # which starts elsewhere, as published
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        trained = [p for p in clip.parameters() if p.requires_grad]
        assert bool(trained) == (name != "frozen")


def as_eva_clip(state):
    """The entries under the names of EVA-CLIP's own code, with the rotary tables it stores."""
    out = {"visual.rope.freqs_cos": torch.ones(16, 32), "text.logit_scale": torch.ones(())}
    for name, tensor in state.items():
        name = name.replace("visual.trunk.", "visual.")
        for theirs, evas in (
            (".attn.q_proj.bias", ".attn.q_bias"),
            (".attn.v_proj.bias", ".attn.v_bias"),
            (".attn.norm.", ".attn.inner_attn_ln."),
            (".mlp.fc1_g.", ".mlp.w1."),
            (".mlp.fc1_x.", ".mlp.w2."),
            (".mlp.fc2.", ".mlp.w3."),
            (".mlp.norm.", ".mlp.ffn_ln."),
        ):
            name = name.replace(theirs, evas)
        out[name] = tensor
    out["visual.blocks.0.attn.rope.freqs_sin"] = torch.ones(16, 32)
    return out


@pytest.mark.parametrize("declip", [False, True])
def test_weights_of_eva_clip_and_declip(theirs, file, tmp_path, declip):
    """DeCLIP's files are checkpoints of a training run on EVA-CLIP's code."""
    state = as_eva_clip(theirs.state_dict())
    content = state
    if declip:
        wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
        content = {"epoch": 6, "name": "run", "state_dict": wrapped, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "epoch_6.pt")
    expected = build(file).state_dict()
    found = build(str(tmp_path / "epoch_6.pt")).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_missing_entry_and_an_odd_one_are_named(theirs, tmp_path):
    state = theirs.state_dict()
    path = tmp_path / "clip.pt"
    torch.save({n: t for n, t in state.items() if "blocks.2.attn.norm.weight" not in n}, path)
    with pytest.raises(UserError, match=r"it has no transformer.resblocks.2.attn.norm.weight of"):
        build(str(path))
    torch.save(state | {"visual.trunk.odd": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"unexpected entry visual\.trunk\.odd"):
        build(str(path))


def test_csa_is_for_eva02_alone():
    with pytest.raises(ValueError, match=r"^dense must be 'value' for ViT-B-16-quickgelu"):
        build_clip("ViT-B/16", None, "frozen", "single", (4, 4), dense="csa")
    with pytest.raises(ValueError, match=r"^dense must be one of value, csa; it is 'x'"):
        build(None, "x")
