"""The tree of prompts, and the text tower over it against a tower over padded prompts."""

from __future__ import annotations

import pytest
import torch

from cat_seg.modeling.clip.prefix_tree import prefix_tree
from cat_seg.modeling.clip.prompts import Prompts
from tests.tiny import tiny_clip

END = 99
# "1 2 3", "1 2 4 5", "1 2 3" again and "7", each up to its end.
TOKENS = torch.tensor([[1, 2, 3, END, 0], [1, 2, 4, 5, END], [1, 2, 3, END, 0], [7, END, 0, 0, 0]])


def test_every_prefix_is_one_node():
    tree = prefix_tree(TOKENS)
    # 1, 7; 1 2, 7 end; 1 2 3, 1 2 4; their ends and 1 2 4 5; its end
    assert sorted(zip(tree.positions.tolist(), tree.tokens.tolist(), strict=True)) == [
        *((0, 1), (0, 7), (1, 2), (1, END), (2, 3), (2, 4), (3, 5), (3, END), (4, END))
    ]
    assert torch.equal(tree.paths[0], tree.paths[2])
    assert torch.equal(tree.paths[0, :2], tree.paths[1, :2])


def test_paths_spell_the_prompts_up_to_their_ends():
    tree = prefix_tree(TOKENS)
    assert tree.reached.sum(dim=1).tolist() == [4, 5, 4, 2]
    assert torch.equal(tree.tokens[tree.paths][tree.reached], TOKENS[tree.reached])
    places = torch.arange(5).expand(4, 5)
    assert torch.equal(tree.positions[tree.paths][tree.reached], places[tree.reached])
    assert tree.tokens[tree.ends].tolist() == [END] * 4
    assert tree.ends[0] == tree.ends[2] != tree.ends[1]


def test_a_slot_is_a_place_of_its_node():
    tree = prefix_tree(TOKENS)
    assert torch.equal(tree.paths.flatten()[tree.slots], torch.arange(len(tree.tokens)))
    assert tree.reached.flatten()[tree.slots].all()


def test_prompts_that_end_early_are_cut():
    assert prefix_tree(TOKENS[[0, 3]]).paths.shape == (2, 4)


@pytest.mark.parametrize("fine_tuning", ["attention", "full", "oft_both"])
def test_features_and_gradients_are_those_of_padded_prompts(fine_tuning):
    """Each prompt on its own has nothing in common with others and no padding."""
    clip = tiny_clip(fine_tuning)
    names = ["cat", "cat", "traffic light", "traffic jam on a long road", "tree"]

    def run(encode):
        features = encode(clip.attention_weights().text)
        trained = [p for p in clip.parameters() if p.requires_grad]
        loss = (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum()
        return features, torch.autograd.grad(loss, trained, allow_unused=True)

    tokens = clip.prompts.tokenize(names)[:, 0]
    together = run(lambda weights: clip.text(tokens, weights))
    alone = run(lambda weights: torch.cat([clip.text(row[None], weights) for row in tokens]))
    torch.testing.assert_close(together[0], alone[0], atol=1e-5, rtol=1e-5)
    assert any(g is not None and g.abs().max() > 1e-3 for g in together[1])
    for one, other in zip(together[1], alone[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_the_tree_of_a_vocabulary_is_built_once():
    prompts = Prompts("imagenet_select", 77)
    assert prompts.arranged(["cat", "dog"]) is prompts.arranged(("cat", "dog"))
    assert prompts.arranged(["cat", "dog"]) is not prompts.arranged(["dog", "cat"])
    assert prompts.arranged(["cat", "dog"]).paths.shape[0] == 2 * 8
