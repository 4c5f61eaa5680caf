"""CATSeg in training: its loss, what trains in it, its settings."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY, build_model

from cat_seg import CATSeg
from cat_seg.modeling import CATSegHead
from tests.tiny import CLASSES, answer, batch, image, tiny_cfg, tiny_model

HEAD = "MODEL.SEM_SEG_HEAD."

MODES = ["frozen", "attention", "full", "oft_both", "oft", "oft_qv", "hyperbolic"]
MODES += ["hyperbolic_plus", "hyro", "lora"]
HYRO = ("MODEL.ADAPTER.HYRO.ROTATION_SIZE", 128)  # the tiny text tower is 128 wide


@pytest.fixture(scope="module")
def model():
    """For tests that change nothing in it but the vocabulary."""
    return tiny_model()


def test_registered():
    assert META_ARCH_REGISTRY.get("CATSeg") is CATSeg
    assert SEM_SEG_HEADS_REGISTRY.get("CATSegHead") is CATSegHead


def plain_loss(model, inputs):
    """The training loss of equally large images, step by step on the model's own parts."""
    mean = torch.tensor([122.7709383, 116.7460125, 104.09373615]).view(3, 1, 1)
    std = torch.tensor([68.5005327, 66.6321579, 70.3231630]).view(3, 1, 1)
    images = torch.stack([(entry["image"].float() - mean) / std for entry in inputs])
    labels = torch.stack([entry["sem_seg"] for entry in inputs])
    images = F.interpolate(images, (64, 64), mode="bilinear", align_corners=False)
    head, clip = model.sem_seg_head, model.sem_seg_head.clip
    features = clip.encode_image(images)
    text = clip.encode_text(CLASSES)
    logits = head(features.dense_map(), text, head.guidance(features))
    assert logits.shape == (len(inputs), len(CLASSES), 16, 16)
    logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    one_hot = torch.stack([(labels == c).float() for c in range(len(CLASSES))], dim=1)
    return F.binary_cross_entropy_with_logits(logits, one_hot)


@pytest.mark.parametrize("size", [(64, 64), (96, 128)])
def test_loss(model, size):
    inputs = batch(size, size)
    losses = model.train()(inputs)
    assert set(losses) == {"loss_sem_seg"}
    expected = plain_loss(model, inputs)
    torch.testing.assert_close(losses["loss_sem_seg"], expected, atol=1e-6, rtol=1e-5)


def test_training_pads_with_the_mean_color_and_ignored_labels(model):
    (small,) = batch((40, 50))
    padded_image = model.pixel_mean.expand(3, 64, 64).clone()
    padded_image[:, :40, :50] = small["image"]
    padded_labels = torch.full((64, 64), 255)
    padded_labels[:40, :50] = small["sem_seg"]
    model.train()
    expected = model([{"image": padded_image, "sem_seg": padded_labels}])
    torch.testing.assert_close(model([small]), expected, atol=1e-6, rtol=1e-5)


def test_the_ignored_value_may_be_a_class_index():
    """With more than 255 classes, 255 is still not a class where it stands for unlabeled."""
    inputs = batch()
    ignored = [e | {"sem_seg": e["sem_seg"].where(e["sem_seg"] != 2, 255)} for e in inputs]
    expected = tiny_model()(ignored)["loss_sem_seg"]
    model = tiny_model(f"{HEAD}IGNORE_VALUE", 2)
    torch.testing.assert_close(model(inputs)["loss_sem_seg"], expected)
    # Padding is unlabeled too, whatever the value.
    (small,) = batch((40, 50))
    small["sem_seg"][small["sem_seg"] == 2] = 255
    torch.testing.assert_close(model([small]), tiny_model()([small]))


def test_training_batches_of_different_sizes(model):
    inputs = batch((40, 50), (64, 90), (20, 30))
    loss = model.train()(inputs)["loss_sem_seg"]
    assert torch.isfinite(loss) and loss > 0


def test_float_images_are_as_good_as_bytes(model):
    inputs = batch()
    floats = [entry | {"image": entry["image"].float()} for entry in inputs]
    torch.testing.assert_close(model.train()(floats), model(inputs))


@pytest.mark.parametrize("fine_tuning", MODES)
def test_a_gradient_reaches_exactly_what_trains(fine_tuning):
    model = tiny_model(f"{HEAD}CLIP_FINETUNE", fine_tuning, *HYRO)
    sum(model(batch()).values()).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
        elif "k_proj.bias" not in name:  # softmax does not feel a shift of all keys
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is not None, name


def test_without_padding_the_padding_token_does_not_train(tmp_path):
    model = build_model(tiny_cfg(tmp_path, f"{HEAD}PAD_LEN", len(CLASSES)))
    sum(model(batch()).values()).backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent


def test_training_with_more_classes_than_go_on(tmp_path):
    model = build_model(tiny_cfg(tmp_path, f"{HEAD}PAD_LEN", 3))
    loss = model(batch())["loss_sem_seg"]
    loss.backward()
    assert torch.isfinite(loss)
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent


def test_bfloat16_training_is_close_to_float32():
    model = tiny_model(f"{HEAD}CLIP_FINETUNE", "oft_both")
    expected = model(batch())["loss_sem_seg"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(batch())["loss_sem_seg"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=0, rtol=0.02)
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all(), name


def test_clip_parameters_are_clip_and_its_adapter():
    model = tiny_model(f"{HEAD}CLIP_FINETUNE", "oft_both")
    found = {id(parameter) for parameter in model.clip_parameters()}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in found}
    assert names == {n for n, _ in model.named_parameters() if n.startswith("sem_seg_head.clip.")}
    assert any("adapter" in name for name in names)


@pytest.mark.parametrize(
    "overrides",
    [
        ("MODEL.PROMPT_ENSEMBLE_TYPE", "imagenet_select"),
        (f"{HEAD}POOLING_SIZES", (1, 1)),
        (f"{HEAD}FEATURE_RESOLUTION", (4, 6)),
        (f"{HEAD}FEATURE_RESOLUTION", (2, 2)),
        (f"{HEAD}NUM_LAYERS", 1),
        ("MODEL.HYPERSPHERICAL.GEODESIC_CORRELATION", True),
        ("MODEL.MASK_FORMER.SIZE_DIVISIBILITY", -1),
    ],
    ids=str,
)
def test_settings_train_and_answer_differently(model, overrides):
    changed = tiny_model(*overrides)
    entry = {"image": image(70, 50)}
    (found,) = answer(changed, entry)
    assert found.shape == (len(CLASSES), 70, 50) and torch.isfinite(found).all()
    assert (found - answer(model, entry)[0]).abs().max() > 1e-6
    loss = changed.train()(batch())["loss_sem_seg"]
    loss.backward()
    assert torch.isfinite(loss)


def test_eighty_templates_answer():
    model = tiny_model("MODEL.PROMPT_ENSEMBLE_TYPE", "imagenet")
    model.set_vocabulary(["cat", "sky"])
    (found,) = answer(model, {"image": image(64, 64)})
    assert found.shape == (2, 64, 64) and torch.isfinite(found).all()


def test_output_bias(tmp_path):
    model = build_model(tiny_cfg(tmp_path, f"{HEAD}OUTPUT_BIAS_INIT", -2.5))
    assert model.sem_seg_head.aggregator.head.bias.tolist() == [-2.5]


def test_a_state_dict_loads_as_in_any_module():
    model, other = tiny_model(), tiny_model()
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    assert model.load_state_dict(state) == ([], [])
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    name, _ = state.popitem()
    with pytest.raises(RuntimeError, match=rf'Missing key\(s\) in state_dict: "{name}"'):
        other.load_state_dict(state)
    found = other.load_state_dict(state | {"extra": torch.zeros(1)}, strict=False, assign=True)
    assert found == ([name], ["extra"])
    assigned = other.state_dict()
    assert all(assigned[n].data_ptr() == tensor.data_ptr() for n, tensor in state.items())
