"""CATSegHead: what goes into the aggregator, for one and for many templates and classes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cat_seg.modeling.aggregator import Guidance
from cat_seg.modeling.encoder import ImageFeatures
from tests.tiny import EMBED_DIM, IMAGE_WIDTH, PAD_LEN, tiny_model


def head(*overrides):
    return tiny_model(*overrides).eval().sem_seg_head


def inputs(classes=5, templates=1, images=2):
    torch.manual_seed(0)
    features = torch.randn(images, EMBED_DIM, 4, 4)
    text = F.normalize(torch.randn(classes, templates, EMBED_DIM), dim=-1)
    guidance = Guidance(features, torch.randn(images, 24, 8, 8), torch.randn(images, 16, 16, 16))
    return features, text, guidance


def aggregator_inputs(head, *args):
    """What the head hands to the aggregator: cost, text, guidance; and the head's answer."""
    seen = []
    handle = head.aggregator.register_forward_hook(lambda m, inputs, out: seen.append(inputs))
    with torch.no_grad():
        logits = head(*args)
    handle.remove()
    (found,) = seen
    return found, logits


def test_guidance_levels():
    module = head()
    torch.manual_seed(0)
    dense = torch.randn(2, 17, EMBED_DIM)
    middle = [torch.randn(2, IMAGE_WIDTH, 4, 4) for _ in range(2)]
    with torch.no_grad():
        found = module.guidance(ImageFeatures(dense, middle))
    assert torch.equal(found.res3, dense[:, 1:].transpose(1, 2).reshape(2, EMBED_DIM, 4, 4))
    p = dict(module.named_parameters())
    for level, index, stride in ((found.res4, 1, 2), (found.res5, 2, 4)):
        name = f"upsample{index}"
        expected = F.conv_transpose2d(
            middle[index - 1], p[f"{name}.weight"], p[f"{name}.bias"], stride=stride
        )
        torch.testing.assert_close(level, expected, atol=1e-5, rtol=1e-5)
    assert found.res4.shape == (2, 24, 8, 8) and found.res5.shape == (2, 16, 16, 16)


def test_the_cost_volume_is_cosine_and_text_goes_along():
    features, text, guidance = inputs()
    (cost, mean, passed), logits = aggregator_inputs(head(), features, text, guidance)
    expected = torch.einsum("bchw,tc->bthw", F.normalize(features, dim=1), text[:, 0])
    torch.testing.assert_close(cost[:, :, 0], expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mean, text[:, 0].expand(2, 5, EMBED_DIM))
    assert passed is guidance
    assert logits.shape == (2, 5, 16, 16)


def test_the_cost_volume_takes_the_plain_features_not_the_guidance():
    features, text, guidance = inputs()
    changed = guidance._replace(res3=torch.randn_like(guidance.res3))
    module = head()
    (cost, _, _), logits = aggregator_inputs(module, features, text, guidance)
    (other, _, _), other_logits = aggregator_inputs(module, features, text, changed)
    assert torch.equal(cost, other)
    assert not torch.allclose(logits, other_logits)


@pytest.mark.parametrize(("most", "passed"), [(0, PAD_LEN), (3, 3), (PAD_LEN + 1, PAD_LEN)])
def test_evaluation_may_pass_fewer_classes(most, passed):
    features, text, guidance = inputs(classes=PAD_LEN + 2)
    module = head("TEST.MOST_CLASSES", most)
    (cost, mean, _), logits = aggregator_inputs(module, features, text, guidance)
    similarity = torch.einsum("bchw,tc->bthw", F.normalize(features, dim=1), text[:, 0]).amax(
        (2, 3)
    )
    best = similarity.topk(passed).indices.sort().values
    torch.testing.assert_close(mean, text[:, 0][best])
    assert cost.shape[1] == passed
    assert torch.equal((logits > -100).any(dim=(2, 3)).nonzero()[:, 1].view(2, -1), best)
    (cost, _, _), _ = aggregator_inputs(module.train(), features, text, guidance)
    assert cost.shape[1] == PAD_LEN


def test_geodesic_correlation():
    features, text, guidance = inputs()
    module = head("MODEL.HYPERSPHERICAL.GEODESIC_CORRELATION", True)
    (cost, _, _), _ = aggregator_inputs(module, features, text, guidance)
    cosine = torch.einsum("bchw,tc->bthw", F.normalize(features, dim=1), text[:, 0])
    expected = 1 - torch.arccos(cosine) / math.pi
    torch.testing.assert_close(cost[:, :, 0], expected, atol=1e-6, rtol=1e-5)


def test_templates_are_channels_of_the_cost_and_one_mean_direction():
    features, text, guidance = inputs(templates=8)
    module = head("MODEL.PROMPT_ENSEMBLE_TYPE", "imagenet_select")
    (cost, mean, _), _ = aggregator_inputs(module, features, text, guidance)
    assert cost.shape == (2, 5, 8, 4, 4)
    for t in range(5):
        direction = text[t].mean(dim=0)
        expected = (direction / direction.norm()).expand(2, EMBED_DIM)
        torch.testing.assert_close(mean[:, t], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("classes", [PAD_LEN, PAD_LEN + 1, 3 * PAD_LEN])
@pytest.mark.parametrize("templates", [1, 8])
def test_at_most_so_many_classes_go_on_for_each_image(classes, templates):
    ensemble = "single" if templates == 1 else "imagenet_select"
    module = head("MODEL.PROMPT_ENSEMBLE_TYPE", ensemble)
    features, text, guidance = inputs(classes, templates, images=3)
    (cost, _, _), logits = aggregator_inputs(module, features, text, guidance)
    assert cost.shape[1] == PAD_LEN
    assert logits.shape == (3, classes, 16, 16)
    for b in range(3):
        unit = F.normalize(features[b], dim=0).flatten(1)
        best = [(text[t] @ unit).max().item() for t in range(classes)]
        chosen = sorted(sorted(range(classes), key=best.__getitem__)[-PAD_LEN:])
        part = Guidance(*(level[b : b + 1] for level in guidance))
        with torch.no_grad():
            expected = module(features[b : b + 1], text[chosen], part)
        torch.testing.assert_close(logits[b, chosen], expected[0], atol=1e-4, rtol=1e-4)
        rest = [t for t in range(classes) if t not in chosen]
        assert (logits[b, rest] == -100).all()
