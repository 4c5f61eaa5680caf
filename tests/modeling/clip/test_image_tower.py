"""The image tower against open_clip's own, and its dense last block against the formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cat_seg.modeling.clip import build_clip
from tests.tiny import EMBED_DIM, IMAGE_LAYERS, IMAGE_WIDTH, open_clip_model, write_clip


def load(config, theirs, grid=(4, 4)):
    weights = config.with_suffix(".pt")
    torch.save(theirs.state_dict(), weights)
    return build_clip(str(config), str(weights), "frozen", "single", grid)


def block_outputs(theirs, images):
    """Tokens (B, 1+N, C) that each of open_clip's image blocks answers."""
    found = []
    handles = [
        block.register_forward_hook(lambda module, args, output: found.append(output))
        for block in theirs.visual.transformer.resblocks
    ]
    theirs.visual(images)
    for handle in handles:
        handle.remove()
    return found


def plain_dense(theirs, x):
    """The dense last block, ln_post and the projection, from the tokens before that block."""
    visual = theirs.visual
    block = visual.transformer.resblocks[-1]
    width = x.shape[-1]
    value_weight = block.attn.in_proj_weight[2 * width :]
    value_bias = block.attn.in_proj_bias[2 * width :]
    v = block.ln_1(x) @ value_weight.T + value_bias
    v = v @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
    cls = x[:, 0]
    out = torch.stack([v[:, n] + cls for n in range(x.shape[1])], dim=1)
    out = out + block.mlp(block.ln_2(out))
    return visual.ln_post(out) @ visual.proj


@pytest.mark.parametrize("quick_gelu", [True, False])
@torch.no_grad()
def test_blocks_are_open_clips_and_the_last_is_dense(tmp_path, quick_gelu):
    config = write_clip(tmp_path, quick_gelu=quick_gelu)
    theirs = open_clip_model(config)
    ours = load(config, theirs)
    images = torch.randn(2, 3, 64, 64)
    features = ours.encode_image(images)
    outputs = block_outputs(theirs, images)
    assert len(outputs) == IMAGE_LAYERS and len(features.middle) == 2
    for tokens, found in zip(outputs[:2], features.middle, strict=True):
        expected = tokens[:, 1:].transpose(1, 2).reshape(2, IMAGE_WIDTH, 4, 4)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    expected = plain_dense(theirs, outputs[-2])
    torch.testing.assert_close(features.dense, expected, atol=1e-5, rtol=1e-5)
    assert features.dense.shape == (2, 17, EMBED_DIM)


@torch.no_grad()
def test_the_dense_map_is_the_patches_without_the_cls_token(tmp_path):
    config = write_clip(tmp_path)
    ours = load(config, open_clip_model(config), grid=(3, 5))
    features = ours.encode_image(torch.randn(2, 3, 48, 80))
    found = features.dense_map()
    assert found.shape == (2, EMBED_DIM, 3, 5)
    for i in range(3):
        for j in range(5):
            assert torch.equal(found[:, :, i, j], features.dense[:, 1 + i * 5 + j])


@pytest.mark.parametrize("grid", [(6, 6), (3, 5)])
@torch.no_grad()
def test_the_positions_are_resized_to_the_grid(tmp_path, grid):
    """Blocks see conv1 of the patches plus the bicubically resized positional embedding."""
    config = write_clip(tmp_path)
    theirs = open_clip_model(config)
    ours = load(config, theirs, grid)
    assert ours.image.input_size == (16 * grid[0], 16 * grid[1])
    images = torch.randn(1, 3, *ours.image.input_size)
    visual = theirs.visual
    positions = visual.positional_embedding
    square = positions[1:].reshape(1, 4, 4, IMAGE_WIDTH).permute(0, 3, 1, 2)
    resized = F.interpolate(square, grid, mode="bicubic", align_corners=False)
    rows = resized.permute(0, 2, 3, 1).reshape(-1, IMAGE_WIDTH)
    patches = visual.conv1(images).flatten(2).transpose(1, 2)[0]
    x = torch.cat([visual.class_embedding[None] + positions[:1], patches + rows])[None]
    x = visual.transformer.resblocks[0](visual.ln_pre(x))
    found = ours.encode_image(images).middle[0]
    expected = x[:, 1:].transpose(1, 2).reshape(1, IMAGE_WIDTH, *grid)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_cls_token_reaches_every_patch_of_the_last_block(tmp_path):
    config = write_clip(tmp_path)
    theirs = open_clip_model(config)
    ours = load(config, theirs)
    tokens = torch.randn(1, 17, IMAGE_WIDTH)
    block = ours.image.transformer.resblocks[-1]
    weights = ours.attention_weights().image[-1]
    changed = tokens.clone()
    changed[:, 5] += torch.randn(IMAGE_WIDTH)
    moved = (block.forward_dense(changed, weights) - block.forward_dense(tokens, weights)).abs()
    assert moved[0, 5].max() > 1e-2  # a patch changes its own value alone
    moved[0, 5] = 0
    assert moved.max() < 1e-6
    changed = tokens.clone()
    changed[:, 0] += torch.randn(IMAGE_WIDTH)
    moved = (block.forward_dense(changed, weights) - block.forward_dense(tokens, weights)).abs()
    assert (moved.amax(dim=-1) > 1e-2).all()
