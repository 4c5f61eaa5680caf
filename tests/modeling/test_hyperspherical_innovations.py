"""HPA and the geodesic similarity against their formulas, written plainly."""

from __future__ import annotations

import math

import pytest
import torch

from cat_seg.modeling.hyperspherical_innovations import (
    AdaptiveFeatureRectification,
    HypersphericalPrototypeAlignment,
    angle,
    geodesic_similarity,
)
from tests.tiny import shake

CHANNELS = 16
CLASSES = 6


def make_hpa(momentum=0.9, separation=0.0, temperature=0.07):
    torch.manual_seed(0)
    hpa = HypersphericalPrototypeAlignment(CLASSES, CHANNELS, momentum, temperature, separation)
    shake(hpa, 0.3)
    return hpa


def total(hpa, features, labels):
    """The sum of HPA's losses."""
    return sum(hpa(features, labels).values())


def step_inputs(seed, present, size=(24, 16), grid=(6, 4)):
    """Features (2, C, *grid) and labels (2, *size) of the `present` classes, some ignored."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, CHANNELS, *grid, generator=generator)
    choice = torch.tensor([*present, 255])
    labels = choice[torch.randint(len(choice), (2, *size), generator=generator)]
    return features, labels


class PlainHPA:
    """The formulas of HPA, class by class and pixel by pixel."""

    def __init__(self, hpa, momentum):
        self.weights = [p.detach().clone() for p in hpa.alignment_proj.parameters()]
        self.momentum = momentum
        self.prototypes = {}

    def aligned(self, x):
        unit = x / x.norm()
        w1, b1, w2, b2 = self.weights
        moved = w2 @ torch.relu(w1 @ unit + b1) + b2
        f = unit + 0.1 * moved / moved.norm()
        return f / f.norm()

    def labeled(self, features, labels):
        """(aligned feature, class) of every labeled position of the grid."""
        _, _, height, width = features.shape
        found = []
        for b in range(len(features)):
            for i in range(height):
                for j in range(width):
                    # Nearest: the label pixel that the grid cell's corner falls on.
                    y = i * labels.shape[1] // height
                    x = j * labels.shape[2] // width
                    label = int(labels[b, y, x])
                    if 0 <= label < CLASSES:
                        found.append((self.aligned(features[b, :, i, j]), label))
        return found

    def step(self, features, labels):
        """Update the prototypes, return the mean geodesic distance."""
        found = self.labeled(features, labels)
        for c in range(CLASSES):
            members = [f for f, label in found if label == c]
            if not members:
                continue
            mean = torch.stack(members).mean(dim=0).detach()
            mean = mean / mean.norm()
            if c in self.prototypes:
                mean = self.momentum * self.prototypes[c] + (1 - self.momentum) * mean
                mean = mean / mean.norm()
            self.prototypes[c] = mean
        distances = [
            torch.arccos((f @ self.prototypes[label]).clamp(-1 + 1e-7, 1 - 1e-7))
            for f, label in found
        ]
        return torch.stack(distances).mean()


def test_hpa_follows_the_plain_loop_over_steps():
    hpa = make_hpa(momentum=0.9)
    plain = PlainHPA(hpa, 0.9)
    # Class 4 is first seen late, class 1 pauses, class 5 never comes.
    for seed, present in enumerate([(0, 1, 2), (0, 2, 3), (3,), (1, 4, 0, 2)]):
        features, labels = step_inputs(seed, present)
        features.requires_grad_()
        loss = total(hpa, features, labels)
        (grad,) = torch.autograd.grad(loss, features)
        expected = plain.step(features, labels)
        (expected_grad,) = torch.autograd.grad(expected, features)
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        # arccos amplifies rounding near 1.
        torch.testing.assert_close(grad, expected_grad, atol=1e-5, rtol=1e-3)
        for c in range(CLASSES):
            assert bool(hpa.prototype_initialized[c]) == (c in plain.prototypes)
            wanted = plain.prototypes.get(c, torch.zeros(CHANNELS))
            torch.testing.assert_close(hpa.prototypes[c], wanted, atol=1e-5, rtol=1e-5)
    assert not hpa.prototype_initialized[5] and not hpa.prototypes[5].any()


def test_an_absent_class_keeps_its_prototype():
    hpa = make_hpa()
    hpa(*step_inputs(0, (0, 1)))
    before = hpa.prototypes.clone()
    hpa(*step_inputs(1, (0,)))
    torch.testing.assert_close(hpa.prototypes[1], before[1], atol=0, rtol=0)
    assert not torch.equal(hpa.prototypes[0], before[0])


def test_prototypes_get_no_gradient_and_stay_of_unit_length():
    hpa = make_hpa(separation=0.5)
    features, labels = step_inputs(0, (0, 1, 2))
    total(hpa, features.requires_grad_(), labels).backward()
    assert not hpa.prototypes.requires_grad
    assert hpa.prototypes.grad is None and hpa.prototypes.grad_fn is None
    norms = hpa.prototypes[:3].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(3), atol=1e-6, rtol=0)


def test_gradient_reaches_the_features_and_the_projection():
    hpa = make_hpa()
    features, labels = step_inputs(0, (0, 1, 2))
    total(hpa, features.requires_grad_(), labels).backward()
    assert features.grad.abs().sum() > 0
    for name, parameter in hpa.alignment_proj.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_a_feature_on_its_prototype_gives_a_finite_gradient():
    hpa = make_hpa()
    features, _ = step_inputs(0, (0,))
    labels = torch.full((2, 24, 16), 255)
    labels[0, 0, 0] = 2  # the only member is its own mean
    loss = total(hpa, features.requires_grad_(), labels)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-3)
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("separation", [0.0, 0.5])
def test_a_batch_without_labels_gives_zero_and_finite_gradients(separation):
    hpa = make_hpa(separation=separation)
    hpa(*step_inputs(0, (0, 1)))
    before = hpa.prototypes.clone()
    features, labels = step_inputs(1, (0,))
    loss = total(hpa, features.requires_grad_(), torch.full_like(labels, 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros_like(features))
    trained = [p for p in hpa.parameters() if p.requires_grad]
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in trained)
    assert torch.equal(hpa.prototypes, before)


def test_labels_outside_the_classes_count_as_unlabeled():
    features, labels = step_inputs(0, (0, 1))
    first, second = make_hpa(), make_hpa()
    odd = labels.clone()
    odd[labels == 255] = -1
    torch.testing.assert_close(total(first, features, labels), total(second, features, odd))


def test_the_norm_of_a_feature_does_not_matter():
    features, labels = step_inputs(0, (0, 1))
    losses = [total(make_hpa(), scale * features, labels) for scale in (1, 7)]
    torch.testing.assert_close(*losses)


def test_temperatures_train_only_with_the_separation_loss():
    assert not make_hpa(separation=0.0).log_temperatures.requires_grad
    hpa = make_hpa(separation=0.5)
    assert hpa.log_temperatures.requires_grad
    features, labels = step_inputs(0, (0, 1, 2))
    total(hpa, features, labels).backward()
    assert (hpa.log_temperatures.grad[:3] != 0).all()


def test_separation_loss_is_the_cross_entropy_over_known_prototypes():
    weight, temperature = 0.7, 0.2
    hpa = make_hpa(separation=weight, temperature=temperature)
    plain = PlainHPA(hpa, 0.9)
    for seed, present in enumerate([(0, 3), (1, 3)]):  # class 0 is known, though absent
        features, labels = step_inputs(seed, present)
        features.requires_grad_()
        loss = total(hpa, features, labels)
        alignment = plain.step(features, labels)
        terms = []
        known = sorted(plain.prototypes)
        for f, label in plain.labeled(features, labels):
            scores = []
            for c in known:
                scale = temperature * math.log1p(math.exp(hpa.log_temperatures[c].item()))
                cosine = (f @ plain.prototypes[c]).clamp(-1 + 1e-7, 1 - 1e-7)
                scores.append((1 - torch.arccos(cosine) / math.pi) / scale)
            log_p = torch.log_softmax(torch.stack(scores), dim=0)
            terms.append(-log_p[known.index(label)])
        expected = alignment + weight * torch.stack(terms).mean()
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        (grad,) = torch.autograd.grad(loss, features)
        (expected_grad,) = torch.autograd.grad(expected, features)
        torch.testing.assert_close(grad, expected_grad, atol=1e-5, rtol=1e-3)


def test_the_alignment_loss_alone_is_the_default():
    features, labels = step_inputs(0, (0, 1, 2))
    assert set(make_hpa()(features, labels)) == {"alignment"}
    both = make_hpa(separation=1)(features, labels)
    assert set(both) == {"alignment", "separation"} and both["separation"] > 0
    assert torch.equal(both["alignment"], total(make_hpa(), features, labels))


def test_hpa_start_values():
    torch.manual_seed(0)
    hpa = HypersphericalPrototypeAlignment(171, 512, 0.99, 0.07, 0.0)
    first, second = hpa.alignment_proj[0], hpa.alignment_proj[2]
    assert first.weight.shape == (128, 512) and second.weight.shape == (512, 128)
    for layer in (first, second):
        bound = 0.1 * math.sqrt(6 / (512 + 128))  # Xavier uniform, gain 0.1
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert not layer.bias.any()
    assert hpa.log_temperatures.shape == (171,) and not hpa.log_temperatures.any()
    assert hpa.prototypes.shape == (171, 512) and not hpa.prototypes.any()
    assert not hpa.prototype_initialized.any()
    assert {"prototypes", "prototype_initialized"} <= set(hpa.state_dict())


def test_hpa_computes_in_float32_under_autocast():
    features, labels = step_inputs(0, (0, 1, 2))
    expected = total(make_hpa(), features, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = total(make_hpa(), features, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)


def test_angle_and_geodesic_similarity():
    cosine = torch.tensor([0.0, 0.5, -0.5])
    torch.testing.assert_close(angle(cosine), torch.tensor([90.0, 60.0, 120.0]).deg2rad())
    torch.testing.assert_close(geodesic_similarity(cosine), torch.tensor([1 / 2, 2 / 3, 1 / 3]))
    ends = torch.tensor([1.0, -1.0, 1.2]).requires_grad_()
    similarity = geodesic_similarity(ends)
    torch.testing.assert_close(similarity, torch.tensor([1.0, 0.0, 1.0]), atol=1e-3, rtol=0)
    similarity.sum().backward()
    assert torch.isfinite(ends.grad).all()


def test_both_together_add_fewer_than_a_million_parameters():
    hpa = HypersphericalPrototypeAlignment(171, 512, 0.99, 0.07, 0.0)
    afr = AdaptiveFeatureRectification(512, 16)
    count = sum(p.numel() for module in (hpa, afr) for p in module.parameters())
    assert 0 < count < 1_000_000
