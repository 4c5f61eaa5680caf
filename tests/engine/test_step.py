from __future__ import annotations

import pytest
import torch
from detectron2.utils.events import EventStorage

from cat_seg.engine import Trainer
from cat_seg.engine.step import StepTrainer


@pytest.fixture
def step(cfg):
    def build(amp: bool) -> StepTrainer:
        cfg.SOLVER.AMP.ENABLED = amp
        return Trainer(cfg)._trainer

    return build


@pytest.mark.parametrize(("amp", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_a_cpu_computes_in_bfloat16_where_amp_is_on(step, amp, dtype):
    trainer = step(amp)
    with EventStorage() as storage:
        trainer.run_step()
    assert trainer.model.dtype_seen == dtype
    assert trainer.model.head.weight.grad.dtype == torch.float32
    losses = {name: value for name, (value, _) in storage.latest().items() if "loss" in name}
    assert losses["total_loss"] == pytest.approx(losses["loss_sem_seg"] + losses["loss_half"])


def test_a_step_moves_the_trained_parameters_alone(step):
    trainer = step(False)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    with EventStorage():
        trainer.run_step()
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in trainer.model.named_parameters() if p.requires_grad}


def test_the_loss_scale_is_saved(step):
    trainer = step(False)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    state = trainer.state_dict()
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    trainer.load_state_dict(state)
    assert trainer.grad_scaler.get_scale() == 8.0


def test_amp_can_be_switched_on_in_the_middle(step):
    state = step(False).state_dict()
    trainer = step(True)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer.load_state_dict(state)
    assert trainer.grad_scaler.get_scale() == 8.0


def test_processes_agree_on_the_largest_flag_with_the_metrics(step, monkeypatch):
    trainer = step(False)
    sent = []

    def all_gather(values):
        sent.append(values)
        own, wait, _ = values
        return [values, ([3 * loss for loss in own], wait + 1, 15)]

    monkeypatch.setattr("cat_seg.engine.step.comm.all_gather", all_gather)
    monkeypatch.setattr(trainer, "_next_batch", lambda: next(trainer._data_loader_iter))
    with EventStorage() as storage:
        trainer.run_step()
    [(losses, wait, flag)] = sent  # one message
    assert (flag, trainer.agreed) == (0, 15)
    written = {name: value for name, (value, _) in storage.latest().items()}
    assert written["total_loss"] == pytest.approx(2 * sum(losses))
    assert written["data_time"] == wait + 1
