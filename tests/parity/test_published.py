"""The published systems' recorded values, within the tolerances of float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from cat_seg.modeling import poincare
from cat_seg.modeling.aggregator import Guidance
from cat_seg.modeling.clip.adapters import FineTuning
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.encoder import ImageFeatures
from tests.parity.conftest import Case, names

FEATURES = 1e-4  # logits and features of order 1
PROBABILITIES = 1e-5  # and losses
ADAPTER = "sem_seg_head.clip.adapter."


def error(case: Case, what: str, value: Tensor, recorded: np.ndarray) -> float:
    assert tuple(value.shape) == recorded.shape
    return case.record(what, float(np.abs(value.detach().numpy() - recorded).max()))


@pytest.fixture
def encoded(case: Case) -> tuple[Tensor, ImageFeatures, Guidance, Tensor]:
    """Text features, image features, guidance and logits of the recorded image."""
    case.model.eval()
    clip = case.model.sem_seg_head.clip
    pixels = (case.image() - case.model.pixel_mean) / case.model.pixel_std
    with torch.no_grad():
        weights = clip.attention_weights()
        text = clip.text(clip.prompts.tokenize(case.classes)[:, 0], weights.text)
        features = clip.encode_image(pixels[None])
        guidance, _ = case.model.rectify_guidance(case.model.sem_seg_head.guidance(features))
        logits = case.model.sem_seg_head(
            features.dense_map(), torch.nn.functional.normalize(text, dim=1)[:, None], guidance
        )
    return text, features, guidance, logits


def test_features_and_logits(case: Case, encoded: tuple) -> None:
    text, features, guidance, logits = encoded
    golden = case.golden
    tokens = features.dense[0][golden["tokens"]]
    assert error(case, "text", text, golden["text"]) < FEATURES
    assert error(case, "dense", tokens, golden["dense_tokens"]) < FEATURES
    for level in ("res3", "res4", "res5"):
        every_seventh = getattr(guidance, level)[0][:, ::7, ::7]
        assert error(case, "guidance", every_seventh, golden[f"guidance_{level}"]) < FEATURES
    assert error(case, "logits", logits[0], golden["logits"]) < FEATURES
    if "angle" in golden:
        angle = mean_angle(text, features.dense[:, 1:])
        assert error(case, "angle", angle, golden["angle"]) < PROBABILITIES


def mean_angle(text: Tensor, patches: Tensor) -> Tensor:
    """HyRo's side output: the angle of classes (T, C) to the mean of patches (B, N, C)."""
    points = poincare.exp0(torch.nn.functional.normalize(text, dim=1), 0.1)
    mean = poincare.exp0(patches, 0.1).mean(dim=(0, 1))
    cosine = points @ mean / (points.norm(dim=1) * mean.norm() + 1e-8)
    return cosine.clamp(-1 + 1e-6, 1 - 1e-6).arccos().mean()


def test_whole_image(case: Case) -> None:
    case.model.eval()
    with torch.no_grad():
        answer = case.model([{"image": case.image()}])[0]["sem_seg"]
    assert error(case, "whole image", answer[:, ::8, ::8], case.golden["sem_seg"]) < PROBABILITIES


def test_sliding_window(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.model.eval()
    monkeypatch.setattr(case.model, "sliding", True)
    with torch.no_grad():
        answer = case.model([{"image": case.image(7, "slide_size")}])[0]["sem_seg"]
    assert error(case, "sliding", answer[:, ::8, ::8], case.golden["slide_sem_seg"]) < PROBABILITIES


@pytest.mark.parametrize("fine_tuning", ["oft", "oft_qv"])
def test_an_h_clip_checkpoint_answers_alike_whatever_trains(
    case: Case, fine_tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.kind != "h_clip":
        pytest.skip("this way of fine-tuning is H-CLIP's")
    clip = case.model.eval().sem_seg_head.clip
    adapter = FineTuning.from_name(fine_tuning).build_adapter(Architecture.from_name("ViT-B/16"))
    adapter.load_state_dict(clip.adapter.state_dict())
    monkeypatch.setitem(clip._modules, "adapter", adapter)
    with torch.no_grad():
        text = clip.embed_text(case.classes)[:, 0]
        answer = case.model([{"image": case.image()}])[0]["sem_seg"]
    assert error(case, "text", text, case.golden["text"]) < FEATURES
    assert error(case, "whole image", answer[:, ::8, ::8], case.golden["sem_seg"]) < PROBABILITIES


def test_trainable_parameters(case: Case) -> None:
    """What trains is what the published code trains, less what no loss reaches."""
    trained = {
        name
        for ours, parameter in case.model.named_parameters()
        if parameter.requires_grad
        for name, _ in published_parts(case, ours, parameter)
    }
    head = "sem_seg_head.predictor.clip_model.visual.transformer.resblocks.11"
    unreached = {f"{head}.attn.q_proj_weight", "hpa.log_temperatures"}
    assert trained - published_trainable(case) == set()
    assert published_trainable(case) - trained <= unreached


def published_trainable(case: Case) -> set[str]:
    return set(names(case.kind)["trainable"])


def test_losses_and_gradients(case: Case) -> None:
    """Every recorded loss, gradient norm, and the prototypes after the step."""
    golden, model = case.golden, case.model
    model.train()
    losses = model([{"image": case.image(), "sem_seg": case.labels()}])
    bce = golden["loss/bce" if case.kind == "hps_seg" else "loss/loss_sem_seg"]
    assert error(case, "losses", losses["loss_sem_seg"], bce) < PROBABILITIES
    assert_gradients(case, losses["loss_sem_seg"], "grad_norm/")
    if case.kind == "hps_seg":
        raw = {"afr": losses["loss_afr"] / 0.1, "hpa": losses["loss_hpa"] / (0.1 * 0.1)}
        for part, loss in raw.items():
            assert error(case, "losses", loss, golden[f"raw_loss/{part}"]) < PROBABILITIES
            assert_gradients(case, loss, f"grad_norm_{part}/", f"{part}.")
        assert error(case, "prototypes", model.hpa.prototypes, golden["prototypes"]) < PROBABILITIES


def assert_gradients(case: Case, loss: Tensor, prefix: str, inner: str = "") -> None:
    """Compare every gradient norm recorded under `prefix`, to 1 % or 1e-7."""
    case.model.zero_grad()
    loss.backward(retain_graph=True)
    found = {
        name: float(part.norm())
        for ours, parameter in case.model.named_parameters()
        for name, part in published_parts(case, ours, gradient(parameter))
    }
    recorded = {k: float(v) for k, v in case.golden.items() if k.startswith(prefix)}
    assert recorded
    wrong = {}
    for key, norm in recorded.items():
        name = inner + key.removeprefix(prefix)
        difference = abs(found[name] - norm)
        if difference > 1e-7:
            case.record("gradient norms (relative)", difference / norm)
        if difference > max(1e-7, 0.01 * norm):
            wrong[name] = (found[name], norm)
    assert not wrong


def gradient(parameter: Tensor) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


def published_parts(case: Case, ours: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The published parameters, name and value, that one of ours holds; adapters are stacked."""
    source = case.sources[ours]
    if ours.startswith(f"{ADAPTER}slot_"):
        stem, rest = source.split("_m_R.0.")
        yield from ((f"{stem}_m_R.{block}.{rest}", part) for block, part in enumerate(tensor))
    elif ours.startswith(ADAPTER) and "hyperbolic_attn" in source:
        for block, projections in enumerate(tensor):
            for projection, part in zip("qkv", projections, strict=True):
                name = source.replace("resblocks.0", f"resblocks.{block}")
                yield name.replace("attn_q.", f"attn_{projection}."), part
    else:
        yield source, tensor
