"""The training loss against torch's own, on a target built in full."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cat_seg.modeling.losses import sem_seg_loss


def plain_loss(logits, labels):
    """BCE with logits on a one-hot target; ignored pixels have an all-zero target."""
    classes = logits.shape[1]
    up = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    target = torch.zeros_like(up)
    for c in range(classes):
        target[:, c] = (labels == c).float()
    return F.binary_cross_entropy_with_logits(up, target)


@pytest.mark.parametrize("ignore", [255, -1, 65535])
@pytest.mark.parametrize("classes", [1, 5, 40])
def test_equals_bce_on_a_one_hot_target(classes, ignore):
    torch.manual_seed(0)
    logits = (4 * torch.randn(2, classes, 6, 7)).requires_grad_()
    labels = torch.randint(classes, (2, 24, 21))
    labels[torch.rand(labels.shape) < 0.3] = ignore
    loss = sem_seg_loss(logits, labels)
    expected = plain_loss(logits, labels)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    (grad,) = torch.autograd.grad(3 * loss, logits)
    (expected_grad,) = torch.autograd.grad(3 * expected, logits)
    torch.testing.assert_close(grad, expected_grad, atol=1e-8, rtol=1e-4)


def test_ignored_pixels_stay_in_the_average():
    logits = torch.zeros(1, 2, 4, 4)
    labels = torch.full((1, 4, 4), 255)
    # log 2 a pixel and class, and as many pixels as without ignoring.
    assert sem_seg_loss(logits, labels).item() == pytest.approx(0.693147, abs=1e-6)
    logits[:, 0] = 3.0
    labels[:, :2] = 0
    expected = plain_loss(logits, labels)
    torch.testing.assert_close(sem_seg_loss(logits, labels), expected)


def test_large_logits_stay_finite_and_right():
    logits = torch.tensor([200.0, -200.0, 25.0]).view(1, 3, 1, 1).requires_grad_()
    labels = torch.tensor([[[1]]])
    loss = sem_seg_loss(logits, labels)
    torch.testing.assert_close(loss, plain_loss(logits, labels))
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_half_precision_logits_are_averaged_in_float32():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 8, 8).bfloat16().requires_grad_()
    labels = torch.randint(3, (1, 64, 64))
    loss = sem_seg_loss(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain_loss(logits.float(), labels), atol=1e-6, rtol=1e-6)
    (grad,) = torch.autograd.grad(loss, logits)
    (expected,) = torch.autograd.grad(plain_loss(logits.float(), labels), logits)
    assert grad.dtype == torch.bfloat16
    torch.testing.assert_close(grad, expected)


def test_no_gradient_where_none_is_asked_for():
    logits = torch.zeros(1, 3, 8, 8)
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    assert not sem_seg_loss(logits, labels).requires_grad
    with torch.no_grad():
        assert sem_seg_loss(logits.requires_grad_(), labels).item() == pytest.approx(0.693147)
