"""Synonyms and prompts of a class at test time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cat_seg.errors import UserError
from cat_seg.modeling.clip.clip import MOST_VOCABULARIES
from cat_seg.modeling.wording import DEFAULT, Wording
from tests.tiny import answer, image, tiny_clip, tiny_model

NAMES = ["car, automobile, vehicle", "sky"]


@pytest.fixture
def clip():
    with torch.no_grad():
        yield tiny_clip("attention").eval()


def test_the_default_is_the_first_synonym(clip):
    assert torch.equal(clip.encode_text(NAMES, Wording()), clip.encode_text(["car", "sky"]))


def test_synonyms_are_averaged_on_the_sphere(clip):
    found = clip.encode_text(NAMES, Wording("average"))
    apart = clip.encode_text(["car", "automobile", "vehicle", "sky"])
    expected = torch.stack([F.normalize(apart[:3].mean(0), dim=-1), apart[3]])
    torch.testing.assert_close(found, expected)
    assert (found[0] - clip.encode_text(["car"])[0]).abs().max() > 1e-3


def test_synonyms_are_averaged_in_each_template():
    with torch.no_grad():
        clip = tiny_clip("attention", "imagenet_select").eval()
        found = clip.encode_text(NAMES, Wording("average"))
        apart = clip.encode_text(["car", "automobile", "vehicle", "sky"])
    expected = torch.stack([F.normalize(apart[:3].mean(0), dim=-1), apart[3]])
    torch.testing.assert_close(found, expected)


def test_a_synonym_counts_once(clip):
    wording = Wording("average")
    same = clip.encode_text(["car, car, , automobile"], wording)
    assert torch.equal(same, clip.encode_text(["car, automobile"], wording))


def test_prompts_replace_the_template_and_are_averaged(clip):
    one, other = "a photo of a {}", "a {} from above"
    alone = [clip.encode_text(NAMES, Wording(prompts=(prompt,))) for prompt in (one, other)]
    both = clip.encode_text(NAMES, Wording(prompts=(one, other)))
    torch.testing.assert_close(both, F.normalize((alone[0] + alone[1]) / 2, dim=-1))
    assert both.shape == clip.encode_text(NAMES).shape
    own = Wording(prompts=("A photo of a {} in the scene",))
    torch.testing.assert_close(clip.encode_text(NAMES, own), clip.encode_text(NAMES))


def test_prompts_need_a_model_with_one_template():
    clip = tiny_clip("attention", "imagenet_select")
    with pytest.raises(ValueError, match="prompts replace the template of a model that has one"):
        clip.check_names(NAMES, "the list", Wording(prompts=("a {}",)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"synonyms": "all"}, "synonyms is 'all'; choose first or average"),
        ({"prompts": ("a photo",)}, "prompts has 'a photo'; give texts with one {} each"),
        ({"prompts": ("{} and {}",)}, "prompts has "),
        ({"prompts": (3,)}, "prompts has 3"),
        ({"prompts": ["a {}"]}, "prompts is .*; give a list"),
    ],
)
def test_other_values_are_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        Wording(**arguments)


def test_names_are_checked_in_the_prompts_that_are_used():
    model = tiny_model()
    long = "word " * 20
    names = [f"{long}a", f"{long}b"]
    with pytest.raises(UserError, match="give the same prompt"):
        model.set_vocabulary(names, Wording(prompts=("a {}",)))
    before = model.eval().vocabulary
    with pytest.raises(UserError):
        model.set_vocabulary(names)
    assert model.vocabulary == before


def test_a_model_uses_the_wording_in_evaluation_alone():
    model = tiny_model().eval()
    inputs = {"image": image(64, 64)}
    model.set_vocabulary(NAMES)
    (first,) = answer(model, inputs)
    model.set_vocabulary(NAMES, Wording("average"))
    (average,) = answer(model, inputs)
    assert not torch.allclose(first, average, atol=1e-4)
    model.set_vocabulary(NAMES)
    assert torch.equal(answer(model, inputs)[0], first)
    model.train()
    model.set_vocabulary(NAMES, Wording(prompts=("a {}",)))
    torch.manual_seed(0)
    inputs = [{"image": image(64, 64), "sem_seg": torch.zeros(64, 64)}]
    losses = model(inputs)
    model.set_vocabulary(NAMES, DEFAULT)
    torch.manual_seed(0)
    assert torch.equal(model(inputs)["loss_sem_seg"], losses["loss_sem_seg"])


def test_text_features_of_the_last_vocabularies_are_kept(clip):
    lists = [[f"thing {number}", "sky"] for number in range(MOST_VOCABULARIES + 1)]
    kept = [clip.encode_text(names) for names in lists]
    for names, features in list(zip(lists, kept, strict=True))[1:]:
        assert clip.encode_text(names) is features
    again = clip.encode_text(lists[0])
    assert again is not kept[0] and torch.equal(again, kept[0])
    with torch.no_grad():
        next(clip.text.parameters()).mul_(1.5)
    assert not torch.equal(clip.encode_text(lists[0]), again)
