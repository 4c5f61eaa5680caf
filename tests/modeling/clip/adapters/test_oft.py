"""Orthogonal fine-tuning against the formula written block by block."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from cat_seg.modeling.clip.adapters import OrthogonalAdapter, TowerWeights
from cat_seg.modeling.clip.adapters.oft import cayley
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.transformer import AttentionWeights
from tests.tiny import shake, tiny_clip, write_clip

SLOT = 128
TEXT_LAYERS, IMAGE_LAYERS = 2, 3
TEXT_SLOTS, IMAGE_SLOTS = 1, 2  # widths 128 and 256


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    return Architecture.from_name(str(write_clip(tmp_path_factory.mktemp("clip"))))


def make(architecture, noise=0.05):
    adapter = OrthogonalAdapter(architecture)
    shake(adapter, noise)
    return adapter


def random_weights(width, layers):
    def matrix():
        return torch.randn(width, width) * width**-0.5

    return [AttentionWeights(*(matrix() for _ in range(4))) for _ in range(layers)]


@pytest.fixture(scope="module")
def frozen():
    torch.manual_seed(0)
    text = random_weights(TEXT_SLOTS * SLOT, TEXT_LAYERS)
    return TowerWeights(text, random_weights(IMAGE_SLOTS * SLOT, IMAGE_LAYERS))


def plain_blocks(adapter, index, tower):
    """The 128x128 matrices of block `index`, [q, k, v, out][slot]: the document's order of steps.

    Mix the slots by the block's own map, keep the tower's slots, mix the rows by the shared map,
    keep rows 4i to 4i+3; then Cayley in the text tower.
    """
    generators = adapter.generators  # (128, 128, rows, slots)
    rows = generators.shape[2]
    kept = range(TEXT_SLOTS) if tower == "text" else range(TEXT_SLOTS, TEXT_SLOTS + IMAGE_SLOTS)
    mixed = {}
    for row in range(rows):
        for slot in kept:
            parts = [
                adapter.slot_mixers[index, slot, s] * generators[:, :, row, s]
                for s in range(TEXT_SLOTS + IMAGE_SLOTS)
            ]
            mixed[row, slot] = sum(parts)
    result = []
    for row in range(4 * index, 4 * index + 4):
        slots = []
        for slot in kept:
            matrix = sum(adapter.row_mixer[row, r] * mixed[r, slot] for r in range(rows))
            if tower == "text":
                skew = (matrix - matrix.T) / 2
                identity = torch.eye(SLOT)
                matrix = (identity - skew) @ torch.linalg.inv(identity + skew)
            slots.append(matrix)
        result.append(slots)
    return result


@pytest.mark.parametrize("tower", ["text", "image"])
@torch.no_grad()
def test_effective_weights_follow_the_formula(architecture, frozen, tower):
    adapter = make(architecture)
    effective = getattr(adapter(frozen), tower)
    own = getattr(frozen, tower)
    assert len(effective) == len(own)
    for index, (found, weights) in enumerate(zip(effective, own, strict=True)):
        full = [torch.block_diag(*slots) for slots in plain_blocks(adapter, index, tower)]
        for projection in range(3):  # query, key, value: on the input side
            expected = weights[projection] @ full[projection]
            assert_close(found[projection], expected, atol=1e-5, rtol=1e-4)
        assert_close(found.out, full[3] @ weights.out, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_start_is_the_identity(architecture, frozen):
    effective = OrthogonalAdapter(architecture)(frozen)
    for tower in ("text", "image"):
        for found, weights in zip(getattr(effective, tower), getattr(frozen, tower), strict=True):
            for one, other in zip(found, weights, strict=True):
                assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_start_values(architecture):
    adapter = OrthogonalAdapter(architecture)
    rows, slots = 4 * IMAGE_LAYERS, TEXT_SLOTS + IMAGE_SLOTS
    assert adapter.generators.shape == (SLOT, SLOT, rows, slots)
    assert not adapter.generators[..., :TEXT_SLOTS].any()
    for row in range(rows):
        for slot in range(TEXT_SLOTS, slots):
            assert torch.equal(adapter.generators[:, :, row, slot], torch.eye(SLOT))
    assert torch.equal(adapter.row_mixer, torch.eye(rows))
    for mixer in adapter.slot_mixers:
        assert torch.equal(mixer, torch.eye(slots))


@torch.no_grad()
def test_text_multipliers_are_orthogonal(architecture):
    adapter = make(architecture, noise=0.3)
    identity = AttentionWeights(*(torch.eye(TEXT_SLOTS * SLOT),) * 4)
    image = random_weights(IMAGE_SLOTS * SLOT, IMAGE_LAYERS)
    text = adapter(TowerWeights([identity] * TEXT_LAYERS, image)).text
    for weights in text:
        for multiplier in weights:
            assert_close(multiplier @ multiplier.T, torch.eye(SLOT), atol=2e-5, rtol=0)
            assert (multiplier - torch.eye(SLOT)).abs().max() > 0.01


@torch.no_grad()
def test_a_text_weight_keeps_its_singular_values(architecture, frozen):
    effective = make(architecture, noise=0.3)(frozen).text[0]
    for found, weights in zip(effective, frozen.text[0], strict=True):
        expected = torch.linalg.svdvals(weights)
        assert_close(torch.linalg.svdvals(found), expected, atol=1e-4, rtol=1e-4)


def test_cayley():
    torch.manual_seed(0)
    matrices = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    found = cayley(matrices)
    for index in [(0, 0), (1, 2)]:
        skew = (matrices[index] - matrices[index].T) / 2
        identity = torch.eye(6, dtype=torch.float64)
        assert_close(found[index], (identity - skew) @ torch.linalg.inv(identity + skew))
        assert_close(found[index] @ found[index].T, identity)
    symmetric = matrices + matrices.transpose(-1, -2)
    assert_close(cayley(symmetric), torch.eye(6, dtype=torch.float64).expand_as(symmetric))


def test_gradient_reaches_every_parameter_but_no_frozen_weight(architecture, frozen):
    adapter = make(architecture)
    effective = adapter(frozen)
    loss = sum(w.sin().sum() for tower in effective for weights in tower for w in weights)
    loss.backward()
    for name, parameter in adapter.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    # Every row of every slot has its part in some weight of a deep enough tower.
    assert (adapter.generators.grad.abs().sum(dim=(0, 1)) > 0).all()


def test_precision_is_float32_under_autocast(architecture, frozen):
    adapter = make(architecture)
    expected = adapter(frozen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = adapter(frozen)
    assert_close(found.text[0].query, expected.text[0].query, atol=1e-6, rtol=1e-6)
    assert_close(found.image[2].out, expected.image[2].out, atol=1e-6, rtol=1e-6)


def test_the_towers_run_on_the_adapted_weights():
    """CLIP with an adapter equals a CLIP without, whose weights are multiplied beforehand."""
    adapted = tiny_clip("oft_both").eval()
    plain = tiny_clip("frozen").eval()
    state = {k: v for k, v in adapted.state_dict().items() if not k.startswith("adapter.")}
    effective = adapted.attention_weights()
    for tower in ("text", "image"):
        for index, weights in enumerate(getattr(effective, tower)):
            names = ("q_proj", "k_proj", "v_proj", "out_proj")
            for name, weight in zip(names, weights, strict=True):
                key = f"{tower}.transformer.resblocks.{index}.attn.{name}.weight"
                assert not torch.allclose(state[key], weight)
                state[key] = weight.detach()
    plain.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        one = adapted.encode_image(images)
        other = plain.encode_image(images)
        assert_close(one.dense, other.dense, atol=1e-5, rtol=1e-4)  # the dense block, too
        assert_close(one.middle[1], other.middle[1], atol=1e-5, rtol=1e-4)
        names = ("cat", "sky")
        assert_close(
            adapted.encode_text(names),
            plain.encode_text(names),
            atol=1e-5,
            rtol=1e-4,
        )


def test_vit_b_16_trains_7867824_parameters():
    with torch.device("meta"):
        adapter = OrthogonalAdapter(Architecture.from_name("ViT-B/16"))
    assert adapter.generators.shape == (128, 128, 48, 10)
    assert adapter.slot_mixers.shape == (12, 10, 10)
    assert adapter.row_mixer.shape == (48, 48)
    assert sum(p.numel() for p in adapter.parameters() if p.requires_grad) == 7_867_824


def test_other_sizes_generalize():
    with torch.device("meta"):
        adapter = OrthogonalAdapter(Architecture.from_name("ViT-L/14@336px"))
    # 768 / 128 text and 1024 / 128 image slots; four rows for each of the 24 image blocks.
    assert adapter.generators.shape == (128, 128, 96, 14)
    assert adapter.slot_mixers.shape == (24, 14, 14)


@pytest.mark.parametrize("part", ["text", "vision"])
def test_a_width_that_is_no_multiple_of_128_is_one_line(tmp_path, part):
    config = write_clip(tmp_path, **{f"{part}_cfg__width": 192, "text_cfg__heads": 2})
    with pytest.raises(ValueError, match=r"^architecture .*128.*192") as error:
        OrthogonalAdapter(Architecture.from_name(str(config)))
    assert "\n" not in str(error.value)
