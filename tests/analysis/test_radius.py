"""The radius of text and image embeddings, and reading it back from metrics.json."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from geoopt.manifolds.lorentz import math as lorentz
from torch.testing import assert_close

from cat_seg.analysis.radius import (
    IMAGE,
    image_radius,
    mean_and_spread,
    metric_names,
    radius,
    read_trajectories,
    text_radius,
)
from cat_seg.errors import UserError
from cat_seg.modeling.clip.adapters import FINE_TUNINGS
from tests.published import MODELS
from tests.tiny import CLASSES, image, tiny_model

HEAD = "MODEL.SEM_SEG_HEAD."


def lorentz_radius(z, c):
    """Geoopt's distance from the origin of exp_o(z) on the hyperboloid of curvature -c."""
    k = torch.tensor(1 / c, dtype=torch.float64)
    tangent = F.pad(z.double(), (1, 0))  # the time axis, which vectors at the origin do not have
    return lorentz.dist0(lorentz.expmap0(tangent, k=k), k=k)


@pytest.mark.parametrize("c", [0.01, 0.5, 1.0, 2.0])
def test_the_radius_is_the_distance_on_the_hyperboloid(c):
    torch.manual_seed(0)
    lengths = torch.tensor([[0.5], [3.0], [6.75], [9.0]])
    z = F.normalize(torch.randn(4, 16), dim=1) * lengths
    assert_close(radius(z), lengths[:, 0])
    assert_close(radius(z), lorentz_radius(z, c).float(), rtol=1e-4, atol=1e-5)


def test_the_radius_of_long_embeddings_is_finite():
    z = torch.tensor([[30.0, 40.0], [300.0, 400.0]])  # exp(500) is beyond float32
    assert_close(radius(z), torch.tensor([50.0, 500.0]))


@pytest.mark.parametrize("fine_tuning", FINE_TUNINGS)
def test_the_formula_on_the_embeddings_of_every_way_of_fine_tuning(fine_tuning):
    rotations = ("MODEL.ADAPTER.HYRO.ROTATION_SIZE", 128)  # the tiny text tower is 128 wide
    model = tiny_model(f"{HEAD}CLIP_FINETUNE", fine_tuning, *rotations)
    clip = model.sem_seg_head.clip
    picture = image(64, 64).float()
    with torch.no_grad():
        weights = clip._adapted_weights()
        text = clip.text(clip.prompts.tokenize(CLASSES)[:, 0], weights.text)
        pixels = (picture - model.pixel_mean) / model.pixel_std
        patches = clip.encode_image(pixels[None]).dense[0, 1:]
    for found, embeddings in (
        (text_radius(model, CLASSES), text),
        (image_radius(model, [picture])[0], patches),
    ):
        expected = lorentz_radius(embeddings, c=0.5).float()
        assert expected.max() > 1  # not normalized
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_one_radius_a_class_and_a_patch():
    model = tiny_model("MODEL.PROMPT_ENSEMBLE_TYPE", "imagenet_select")
    clip = model.sem_seg_head.clip
    found = text_radius(model, CLASSES)
    with torch.no_grad():
        features = clip.embed_text(CLASSES)
    assert features.shape[1] == 8
    assert_close(found, features.norm(dim=-1).mean(dim=1))
    sizes = ((64, 64), (40, 90), (200, 30))
    pictures = [image(*size) for size in sizes]
    found = image_radius(model, pictures)
    assert found.shape == (3, 16)
    for index, picture in enumerate(pictures):
        assert_close(found[index : index + 1], image_radius(model, [picture]))


def test_measuring_leaves_the_kept_text_features_as_they_are():
    model = tiny_model(f"{HEAD}CLIP_FINETUNE", "hyperbolic").eval()
    clip = model.sem_seg_head.clip
    with torch.no_grad():
        before = clip.encode_text(CLASSES)
        text_radius(model, ["bird", "tree"])
        assert clip.encode_text(CLASSES) is before
        first = text_radius(model, CLASSES)
        clip.adapter.text.mul_(1.5)
        assert not torch.allclose(text_radius(model, CLASSES), first)
        assert_close(before.norm(dim=-1), torch.ones(len(CLASSES), 1))


@pytest.mark.parametrize("system", ["HyperCLIP++", "HyRo", "LoRA"])
def test_the_radius_follows_every_adapter(system):
    model = tiny_model(*MODELS[system]).eval()
    text, patches = text_radius(model, CLASSES), image_radius(model, [image(64, 64)])
    with torch.no_grad():
        for parameter in model.sem_seg_head.clip.adapter.parameters():
            parameter.mul_(1.5)
    assert not torch.allclose(text_radius(model, CLASSES), text)
    assert not torch.allclose(image_radius(model, [image(64, 64)]), patches)


def test_no_gradient_is_kept():
    model = tiny_model(f"{HEAD}CLIP_FINETUNE", "full")
    assert not text_radius(model, CLASSES).requires_grad
    assert not image_radius(model, [image(64, 64)]).requires_grad


def test_mean_and_spread():
    assert mean_and_spread(torch.tensor([[1.0, 3.0], [1.0, 3.0]])) == (2.0, 1.0)
    assert mean_and_spread(torch.tensor([5.0])) == (5.0, 0.0)


def write_metrics(path, *lines):
    path.write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    )
    return path


def measured(name, iteration, mean, std=0.5):
    return {"iteration": iteration, **dict(zip(metric_names(name), (mean, std), strict=True))}


def test_trajectories_are_read_in_order_each_iteration_once(tmp_path):
    path = write_metrics(
        tmp_path / "metrics.json",
        {"iteration": 19, "total_loss": 1.0},
        measured("text/coco", 20, 7.0),
        measured(IMAGE, 20, 3.0) | {"lr": 1.0},
        measured("text/coco", 0, 8.0, 0.25),
        measured("text/coco", 20, 7.5),  # of a run that was killed and went on
    )
    with path.open("a") as file:
        file.write('{"iteration": 40, "radi')  # being written
    found = read_trajectories(path)
    assert set(found) == {"text/coco", "image"}
    assert found["text/coco"].iteration == [0, 20]
    assert found["text/coco"].mean == [8.0, 7.5]
    assert found["text/coco"].std == [0.25, 0.5]
    assert found["image"].mean == [3.0]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot read"),
        ("{no json\n", "not a metrics.json"),
        ("[1, 2]\n", "not a metrics.json"),
        ('{"total_loss": 1}\n', "not a metrics.json"),
        ("\udcff\n", "not a metrics.json"),
        ('{"iteration": 1, "total_loss": 1}\n', r"no radius.*MODEL\.HYPERBOLIC\.RADIUS_PERIOD"),
        ("", "no radius"),
    ],
)
def test_a_file_without_trajectories_is_one_line(tmp_path, content, complaint):
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(
        UserError, match=rf"metrics\.json.*{complaint}|{complaint}.*metrics"
    ) as error:
        read_trajectories(path)
    assert "\n" not in str(error.value)
