"""The text tower against open_clip's own."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F

from cat_seg.modeling.clip import build_clip
from tests.tiny import CONTEXT, open_clip_model, tiny_clip, write_clip

NAMES = ["cat", "a very long name of a small green thing", "dog, hound", "sky"]


def pair(folder, **changes):
    """Our CLIP and open_clip's with the same weights."""
    config = write_clip(folder, **changes)
    theirs = open_clip_model(config)
    weights = folder / "clip.pt"
    torch.save(theirs.state_dict(), weights)
    return build_clip(str(config), str(weights), "frozen", "single", (4, 4)), theirs


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_features_are_open_clips(tmp_path, quick_gelu):
    ours, theirs = pair(tmp_path, quick_gelu=quick_gelu)
    prompts = [f"A photo of a {name.split(',')[0]} in the scene" for name in NAMES]
    tokens = open_clip.tokenize(prompts, context_length=CONTEXT)
    with torch.no_grad():
        expected = theirs.encode_text(tokens)
        raw = ours.text(tokens, ours.attention_weights().text)
        features = ours.encode_text(NAMES)
    torch.testing.assert_close(raw, expected, atol=1e-5, rtol=1e-5)
    assert features.shape == (4, 1, 64)
    torch.testing.assert_close(features[:, 0], F.normalize(expected, dim=-1), atol=1e-5, rtol=1e-5)


def test_the_two_activations_differ():
    clips = [tiny_clip("frozen", quick_gelu=quick) for quick in (True, False)]
    one, other = (clip.encode_text(NAMES) for clip in clips)
    assert (one - other).abs().max() > 1e-4


@pytest.fixture(scope="module")
def tower():
    clip = tiny_clip("frozen")
    return lambda tokens: clip.text(tokens, clip.attention_weights().text)


@torch.no_grad()
def test_a_prompt_is_the_same_alone_and_beside_longer_ones(tower):
    tokens = open_clip.tokenize(["cat", "a long text about the green dog"], context_length=CONTEXT)
    torch.testing.assert_close(tower(tokens)[:1], tower(tokens[:1]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_stands_after_the_end_does_not_matter(tower):
    tokens = open_clip.tokenize(["cat", "a long text about the green dog"], context_length=CONTEXT)
    odd = tokens.clone()
    end = int(tokens[0].argmax())
    odd[0, end + 1 :] = 320
    torch.testing.assert_close(tower(odd), tower(tokens), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_stands_before_the_end_matters(tower):
    tokens = open_clip.tokenize(["cat", "dog"], context_length=CONTEXT)
    one, other = tower(tokens)
    assert (one - other).abs().max() > 1e-3


@torch.no_grad()
def test_a_prompt_that_fills_the_context(tmp_path):
    ours, theirs = pair(tmp_path)
    tokens = open_clip.tokenize(["green " * 40], context_length=CONTEXT)
    assert tokens[0, -1] > 0
    found = ours.text(tokens, ours.attention_weights().text)
    torch.testing.assert_close(found, theirs.encode_text(tokens), atol=1e-5, rtol=1e-5)
