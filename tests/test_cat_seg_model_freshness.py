"""Nothing that CATSeg keeps between calls is ever stale."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import CLASSES, answer, assert_same, batch, image, tiny_model

HEAD = "MODEL.SEM_SEG_HEAD."


def fresh(model):
    """Another model with the same weights and vocabulary, that has kept nothing."""
    other = tiny_model(f"{HEAD}CLIP_FINETUNE", "oft_both")
    other.load_state_dict(model.state_dict())
    other.set_vocabulary(model.eval().vocabulary)
    return other


@pytest.fixture
def trained():
    return tiny_model(f"{HEAD}CLIP_FINETUNE", "oft_both")


def step(model):
    """One optimizer step that every part feels."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    optimizer.zero_grad()
    sum(model.train()(batch()).values()).backward()
    optimizer.step()


ENTRY = {"image": image(64, 64)}


def test_evaluations_between_steps_follow_the_weights(trained):
    before = answer(trained, ENTRY)
    for _ in range(2):
        step(trained)
        found = answer(trained, ENTRY)
        assert (found[0] - before[0]).abs().max() > 1e-4
        assert_same(found, answer(fresh(trained), ENTRY))
        before = found


def test_a_loaded_checkpoint_is_answered_with(trained):
    other = tiny_model(f"{HEAD}CLIP_FINETUNE", "oft_both")
    step(other)
    answer(trained, ENTRY)
    trained.load_state_dict(other.state_dict())  # while in evaluation mode
    assert_same(answer(trained, ENTRY), answer(other, ENTRY))


def test_a_change_of_vocabulary_is_answered(trained):
    for names in (["cat"], ["sky", "cat"], CLASSES):
        trained.set_vocabulary(names)
        assert_same(answer(trained, ENTRY), answer(fresh(trained), ENTRY))


def test_training_steps_after_inference_mode(trained):
    trained.eval()
    with torch.inference_mode():
        trained([ENTRY])
    step(trained)
    assert_same(answer(trained, ENTRY), answer(fresh(trained), ENTRY))


def test_evaluation_with_gradients_enabled(trained):
    expected = answer(trained, ENTRY)
    trained.eval()
    found = trained([ENTRY])[0]["sem_seg"]
    torch.testing.assert_close(found.detach(), expected[0], atol=1e-6, rtol=0)


def test_text_is_encoded_once_for_a_test_run(trained, monkeypatch):
    text = trained.sem_seg_head.clip.text
    calls, forward = [], text.forward
    monkeypatch.setattr(text, "forward", lambda *args: calls.append(1) or forward(*args))
    trained.eval()
    with torch.no_grad():
        for seed in range(3):
            trained([{"image": image(64, 64, seed)}])
    assert len(calls) == 1
