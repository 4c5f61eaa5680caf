"""The aggregator as a whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cat_seg.modeling import chunking
from cat_seg.modeling.aggregator import (
    AggregationLayer,
    Aggregator,
    ClassAggregation,
    Guidance,
    SpatialAggregation,
)
from tests.tiny import shake

CHANNELS, CLIP, TEXT, IMAGE = 32, 20, 12, 10
RAW, PROJECTED = (14, 6), (8, 4)
GRID = (4, 6)


def make(templates=1, layers=2, output_bias=None, noise=0.1):
    torch.manual_seed(0)
    parts = [
        AggregationLayer(
            SpatialAggregation(CHANNELS, IMAGE, 4, GRID, 2),
            ClassAggregation(CHANNELS, TEXT, 4, (2, 2), 6, True),
        )
        for _ in range(layers)
    ]
    module = Aggregator(
        parts,
        CHANNELS,
        templates,
        CLIP,
        TEXT,
        IMAGE,
        decoder_channels=(32, 16),
        guidance_channels=RAW,
        projected_channels=PROJECTED,
        output_bias=output_bias,
    )
    shake(module, noise)
    return module


def inputs(images=2, classes=3, templates=1):
    torch.manual_seed(1)
    height, width = GRID
    cost = torch.randn(images, classes, templates, *GRID)
    text = F.normalize(torch.randn(images, classes, CLIP), dim=-1)
    guidance = Guidance(
        torch.randn(images, CLIP, *GRID),
        torch.randn(images, RAW[0], 2 * height, 2 * width),
        torch.randn(images, RAW[1], 4 * height, 4 * width),
    )
    return cost, text, guidance


@pytest.mark.parametrize("templates", [1, 3])
def test_logits_are_four_times_the_grid(templates):
    logits = make(templates)(*inputs(templates=templates))
    assert logits.shape == (2, 3, 16, 24)
    assert torch.isfinite(logits).all()


def test_each_image_is_by_itself():
    module = make()
    cost, text, guidance = inputs()
    both = module(cost, text, guidance)
    for b in range(2):
        part = slice(b, b + 1)
        one = module(cost[part], text[part], Guidance(*(level[part] for level in guidance)))
        torch.testing.assert_close(both[part], one, atol=1e-5, rtol=1e-4)


def test_embedding_layers_and_decoder_are_chained_as_described():
    """The order of the steps, with the layers' own modules as black boxes."""
    module = make(layers=2)
    cost, text, guidance = inputs(images=1)
    p = dict(module.named_parameters())

    def conv(name, x, padding):
        return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], padding=padding)

    x = conv("cost_embedding", cost[0], 3)
    assert p["cost_embedding.weight"].shape == (CHANNELS, 1, 7, 7)
    image = conv("image_guidance", guidance.res3, 1).relu().permute(0, 2, 3, 1)
    words = F.linear(text, p["text_guidance.weight"], p["text_guidance.bias"]).relu()
    x = x.permute(0, 2, 3, 1)[None]
    for layer in module.layers:
        x = layer.classes(layer.spatial(x, image), words)
    maps = x[0].permute(0, 3, 1, 2)
    for index, level in enumerate((guidance.res4, guidance.res5)):
        stage = (module.decoder1, module.decoder2)[index]
        projected = conv(f"decoder_guidance.{index}", level, 1).relu()
        maps = stage(maps, *stage.prepare(projected))
    expected = conv("head", maps, 1).transpose(0, 1)
    logits = module(cost, text, guidance)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def test_the_order_of_the_classes_does_not_matter():
    module = make()
    cost, text, guidance = inputs()
    order = torch.tensor([2, 0, 1])
    permuted = module(cost[:, order], text[:, order], guidance)
    torch.testing.assert_close(permuted, module(cost, text, guidance)[:, order], atol=1e-4, rtol=0)


def test_every_parameter_gets_a_gradient():
    module = make()
    module(*inputs()).square().mean().backward()
    silent = [name for name, p in module.named_parameters() if p.grad is None]
    assert not silent


def test_the_output_bias_starts_where_it_is_told():
    assert make(output_bias=-2.5, noise=0).head.bias.item() == -2.5


def test_parts_change_neither_logits_nor_gradients(monkeypatch):
    module = make()
    given = inputs()

    def run():
        logits = module(*given)
        return logits, torch.autograd.grad(logits.square().sum(), list(module.parameters()))

    whole, expected = run()
    monkeypatch.setitem(chunking.PART_ELEMENTS, "cpu", 1)  # a class or a row at a time
    found, gradients = run()
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(module(*given), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("classes_in_a_part", "calls"), [(12, 1), (6, 2), (3, 4), (1, 4)])
def test_images_with_few_classes_go_together_without_gradients(
    monkeypatch, classes_in_a_part, calls
):
    module, given = make(), inputs(images=4)
    expected = module(*given)
    seen = []
    module.image_guidance.register_forward_hook(lambda *call: seen.append(len(call[-1])))
    one_class = GRID[0] * GRID[1] * CHANNELS
    monkeypatch.setitem(chunking.PART_ELEMENTS, "cpu", classes_in_a_part * one_class)
    with torch.no_grad():
        found = module(*given)
    assert seen == [4 // calls] * calls
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
