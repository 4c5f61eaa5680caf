"""Pre-training: it learns, and writes what open_clip and the segmentation model load."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch

from cat_seg.modeling.clip import build_clip
from tools.quickstart.classes import load_classes
from tools.quickstart.pretrain import (
    PretrainSettings,
    contrastive_loss,
    encode_images,
    name_crops,
    pretrain,
)

CLASSES = load_classes()
SMALL = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 32,
        "layers": 3,
        "width": 128,
        "head_width": 32,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 14,
        "vocab_size": 49408,
        "width": 128,
        "heads": 4,
        "layers": 1,
    },
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny_quickstart_clip.json"
    path.write_text(json.dumps(SMALL))
    return path


def test_training_lowers_the_loss_and_names_crops(config: Path, tmp_path: Path) -> None:
    settings = PretrainSettings(steps=100, batch=28, crops=6, test_crops=3, warmup=10)
    untrained = pretrain(
        config,
        tmp_path / "start.pt",
        CLASSES,
        PretrainSettings(steps=1, batch=28, crops=1, test_crops=3, learning_rate=0.0),
        seed=0,
    )
    measured = pretrain(config, tmp_path / "clip.pt", CLASSES, settings, seed=0)

    assert measured["loss"] < untrained["loss"] - 0.5
    assert measured["seen"] > untrained["seen"] + 0.1
    assert 0 <= measured["unseen"] <= 1


def test_the_file_loads_into_open_clip_and_into_the_model(config: Path, tmp_path: Path) -> None:
    weights = tmp_path / "clip.pt"
    settings = PretrainSettings(steps=1, batch=4, crops=1, test_crops=1)
    pretrain(config, weights, CLASSES, settings, seed=0)

    state = torch.load(weights, weights_only=True)
    open_clip.CLIP(**SMALL).load_state_dict(state)
    clip = build_clip(str(config), str(weights), "frozen", "single", (2, 2))
    assert torch.equal(clip.image.conv1.weight, state["visual.conv1.weight"])


def test_a_seed_gives_the_same_weights(config: Path, tmp_path: Path) -> None:
    settings = PretrainSettings(steps=2, batch=4, crops=1, test_crops=1)
    files = [tmp_path / f"{name}.pt" for name in "abc"]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        pretrain(config, file, CLASSES, settings, seed=seed)
    a, b, c = (torch.load(f, weights_only=True)["visual.proj"] for f in files)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_images_of_one_class_share_a_caption() -> None:
    torch.manual_seed(0)
    model = open_clip.CLIP(**SMALL).eval()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    tokens = torch.randint(1, 1000, (28, 14))
    labels = torch.tensor([7, 2, 7, 7])

    text = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp() * encode_images(model, images) @ text[[2, 7]].T
    by_image = -torch.stack([logits.log_softmax(1)[i, c] for i, c in enumerate((1, 0, 1, 1))])
    by_text = logits.log_softmax(0)
    first, second = -by_text[1, 0], -(by_text[0, 1] + by_text[2, 1] + by_text[3, 1]) / 3
    expected = (by_image.mean() + (first + second) / 2) / 2

    loss = contrastive_loss(model, images, tokens, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_crops_get_the_class_of_the_nearest_caption() -> None:
    torch.manual_seed(0)
    model = open_clip.CLIP(**SMALL).eval()
    images = torch.randint(0, 256, (70, 3, 32, 32), dtype=torch.uint8)
    tokens = torch.randint(1, 1000, (5, 14))
    with torch.no_grad():
        similar = encode_images(model, images) @ model.encode_text(tokens, normalize=True).T
    assert torch.equal(name_crops(model, images, tokens), similar.argmax(1))
