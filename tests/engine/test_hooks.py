from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage
from torch import nn

from cat_seg.engine.hooks import MetricHistory, StopOnSignal


class Saved:
    """A checkpointer that only counts."""

    saved_iteration = None

    def __init__(self):
        self.names = []

    def save(self, name, iteration):
        self.names.append(name)
        self.saved_iteration = iteration

    def get_checkpoint_file(self):
        return self.names[-1]


@pytest.fixture
def stop():
    hook = StopOnSignal(Saved())
    hook.trainer = SimpleNamespace(iter=4)
    hook.before_train()
    yield hook
    hook.after_train()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_after_the_iteration_with_a_checkpoint(stop, signum, log):
    stop.before_step()
    os.kill(os.getpid(), signum)
    assert stop._checkpointer.names == []
    with pytest.raises(SystemExit) as stopped:
        stop.after_step()
    assert stopped.value.code == 128 + signum
    assert stop._checkpointer.names == ["model_0000004"]
    assert f"Stopped by {signum.name}" in log.text
    assert "--resume to continue from model_0000004" in log.text


def test_no_signal_no_stop(stop):
    stop.before_step()
    stop.after_step()
    assert stop._checkpointer.names == []


def test_an_iteration_is_saved_once(stop):
    stop.before_step()
    stop._checkpointer.save("model_final", iteration=4)
    stop.save()
    assert stop._checkpointer.names == ["model_final"]


def test_nothing_is_saved_before_the_first_iteration(stop):
    stop.save()
    assert stop._checkpointer.names == []


def test_the_first_signal_decides_the_status(stop):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    stop.before_step()
    with pytest.raises(SystemExit) as stopped:
        stop.after_step()
    assert stopped.value.code == 128 + signal.SIGINT


def test_evaluation_is_broken_off_before_the_next_image(stop):
    model = nn.Identity()
    stop.before_step()
    stop.save()
    with pytest.raises(SystemExit) as stopped, stop.before_each_call(model):
        model(1)
        os.kill(os.getpid(), signal.SIGTERM)
        model(2)
        pytest.fail("went on")
    assert stopped.value.code == 128 + signal.SIGTERM
    with pytest.raises(SystemExit), stop.before_each_call(model):
        pytest.fail("began all the same")
    assert model(3) == 3


def test_training_in_another_thread_leaves_the_handlers_alone():
    hook = StopOnSignal(Saved())
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=hook.before_train)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_window_of_the_metrics_is_carried_over():
    hook, resumed = MetricHistory(window=3), MetricHistory(window=3)
    with EventStorage() as storage:
        for iteration, loss in enumerate([9.0, 1.0, 2.0, 5.0]):
            storage.put_scalar("total_loss", loss, cur_iter=iteration)
            storage.put_scalar("data_time", 1.0, cur_iter=iteration)
            storage.put_scalar("lr", 0.1, smoothing_hint=False, cur_iter=iteration)
        hook.trainer = SimpleNamespace(storage=storage)
        resumed.load_state_dict(hook.state_dict())
    with EventStorage(4) as storage:
        resumed.trainer = SimpleNamespace(storage=storage)
        resumed.before_train()
        assert storage.latest_with_smoothing_hint(3) == {"total_loss": (2.0, 3)}


def test_there_is_no_window_before_training():
    hook = MetricHistory()
    hook.trainer = SimpleNamespace()
    assert hook.state_dict() == {}
