"""From class names to token ids."""

from __future__ import annotations

import open_clip
import pytest
import torch

from cat_seg.configuration import load_config
from cat_seg.errors import UserError
from cat_seg.modeling.clip.prompts import Prompts
from tests.tiny import tiny_model

LENGTH = 77


def tokens(*prompts: str) -> torch.Tensor:
    return open_clip.tokenize(list(prompts), context_length=LENGTH)


def test_single_template():
    found = Prompts("single", LENGTH).tokenize(["cat", "traffic light"])
    expected = tokens("A photo of a cat in the scene", "A photo of a traffic light in the scene")
    assert found.shape == (2, 1, LENGTH)
    assert torch.equal(found[:, 0], expected)


def test_only_the_first_synonym_is_prompted():
    prompts = Prompts("single", LENGTH)
    assert torch.equal(prompts.tokenize(["dog , hound, puppy"]), prompts.tokenize(["dog"]))


@pytest.mark.parametrize(("ensemble", "templates"), [("imagenet_select", 8), ("imagenet", 80)])
def test_ensembles(ensemble, templates):
    prompts = Prompts(ensemble, LENGTH)
    found = prompts.tokenize(["cat", "dog", "car"])
    assert len(prompts) == templates
    assert found.shape == (3, templates, LENGTH)
    assert len(found.flatten(0, 1).unique(dim=0)) == 3 * templates
    # Each template holds the class name.
    (cat,) = open_clip.tokenize(["cat"])[0, 1:2].tolist()
    assert all(cat in row for row in found[0].tolist())


def test_the_selected_templates_stand_in_the_published_order():
    """CAT-Seg's IMAGENET_TEMPLATES_SELECT; the cost embedding has an input channel for each."""
    expected = tokens(
        "itap of a cat.",
        "a bad photo of the cat.",
        "a origami cat.",
        "a photo of the large cat.",
        "a cat in a video game.",
        "art of the cat.",
        "a photo of the small cat.",
        "A photo of a cat in the scene",
    )
    assert torch.equal(Prompts("imagenet_select", LENGTH).tokenize(["cat"])[0], expected)


def test_a_long_prompt_is_cut_and_still_ends():
    found = Prompts("single", 10).tokenize(["very " * 30 + "long name"])
    assert found.shape == (1, 1, 10)
    assert found[0, 0, -1] == open_clip.tokenizer._tokenizer.eot_token_id


def test_an_unknown_ensemble_is_one_line():
    with pytest.raises(ValueError, match=r"^ensemble must be one of single, .*'many'"):
        Prompts("many", LENGTH)


def test_own_templates_replace_the_ensemble():
    prompts = Prompts("imagenet", LENGTH, ["a drawing of a {}", "{} at night"])
    assert len(prompts) == 2
    expected = tokens("a drawing of a cat", "cat at night")
    assert torch.equal(prompts.tokenize(["cat, tomcat"])[0], expected)


def test_own_templates_come_from_the_config():
    model = tiny_model("MODEL.PROMPT_TEMPLATES", ("a drawing of a {}", "{} at night"))
    encoder = model.sem_seg_head.encoder
    assert encoder.templates == 2
    with torch.no_grad():
        assert encoder.encode_text(["cat", "dog"]).shape[:2] == (2, 2)


@pytest.mark.parametrize("value", ['["a photo"]', '["{} and {}"]', '["{name}"]', "[3]"])
def test_templates_without_one_place_for_the_name_are_refused(value):
    with pytest.raises(
        UserError, match=r"MODEL\.PROMPT_TEMPLATES is .*; set it to texts with one {}"
    ):
        load_config("configs/vitb_384.yaml", ["MODEL.PROMPT_TEMPLATES", value])
