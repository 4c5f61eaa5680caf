from __future__ import annotations

import os
import pickle
import re
import resource
import signal

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cat_seg.checkpoint import Checkpointer, last_checkpoint
from cat_seg.errors import UserError
from tests.published import ENHANCED, OFT, published
from tests.tiny import tiny_model


class Counter:
    """Something with a state."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def other_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(3, 2)


def test_what_is_saved_is_loaded(model, tmp_path, log):
    Checkpointer(model, str(tmp_path), counter=Counter(7)).save("model_3", iteration=3)
    other, counter = other_model(), Counter()
    rest = Checkpointer(other, str(tmp_path), counter=counter).resume_or_load("", resume=True)
    assert torch.equal(other.weight, model.weight)
    assert counter.value == 7
    assert rest["iteration"] == 3
    assert len(rest["rng"]) == 1
    assert last_checkpoint(str(tmp_path)) == tmp_path / "model_3.pth"
    assert (
        f"loaded 2 entries from {tmp_path}/model_3.pth (format: state dict); "
        "not in the model: none; not in the file: none" in log.text
    )


def test_without_resume_only_the_model_is_loaded(model, tmp_path):
    Checkpointer(model, str(tmp_path), counter=Counter(7)).save("model_3", iteration=3)
    other, counter = other_model(), Counter()
    checkpointer = Checkpointer(other, str(tmp_path), counter=counter)
    assert checkpointer.resume_or_load(str(tmp_path / "model_3.pth"), resume=False) == {}
    assert torch.equal(other.weight, model.weight)
    assert counter.value == 0


@pytest.mark.parametrize("dies_in", ["torch.save", "os.replace"])
def test_a_save_that_dies_leaves_the_old_checkpoint_alone(model, tmp_path, monkeypatch, dies_in):
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_1")
    before = (tmp_path / "model_1.pth").read_bytes()

    def die(content, file):
        if dies_in == "torch.save":
            file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(*((torch, "save") if dies_in == "torch.save" else (os, "replace")), die)
    for name in ("model_1", "model_2"):
        with pytest.raises(KeyboardInterrupt):
            checkpointer.save(name)
    assert (tmp_path / "model_1.pth").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_1.pth"]
    assert last_checkpoint(str(tmp_path)) == tmp_path / "model_1.pth"


def test_the_tag_follows_only_a_complete_file(model, tmp_path, monkeypatch):
    checkpointer = Checkpointer(model, str(tmp_path))
    monkeypatch.setattr(checkpointer, "tag_last_checkpoint", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpointer.save("model_1")
    assert last_checkpoint(str(tmp_path)) is None
    assert torch.load(tmp_path / "model_1.pth", weights_only=True)["model"].keys() == {
        "weight",
        "bias",
    }


def test_what_a_killed_process_left_is_removed(model, tmp_path):
    (tmp_path / "model_0.pth.partial").write_bytes(b"half of it")
    Checkpointer(model, str(tmp_path)).save("model_1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_1.pth"]


def test_a_full_disk_is_one_line_and_costs_no_earlier_checkpoint(model, tmp_path, monkeypatch):
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_1")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*model_2\.pth: .*Errno") as error:
            checkpointer.save("model_2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_only_the_process_that_saves_to_disk_writes(model, tmp_path):
    checkpointer = Checkpointer(model, str(tmp_path), save_to_disk=False)
    checkpointer.save("model_1", iteration=1)
    assert checkpointer.saved_iteration == 1
    assert not list(tmp_path.iterdir())


def test_safetensors(model, tmp_path):
    save_file(dict(model.state_dict()), tmp_path / "model.safetensors")
    other = other_model()
    Checkpointer(other).load(str(tmp_path / "model.safetensors"))
    assert torch.equal(other.weight, model.weight)


def test_entries_without_a_place_are_named_shortly(model, tmp_path, log):
    extra = {f"extra{i}": torch.zeros(1) for i in range(5)}
    torch.save({"model": {"weight": model.weight.data, **extra}}, tmp_path / "model.pth")
    Checkpointer(other_model()).load(str(tmp_path / "model.pth"))
    assert "loaded 1 entries" in log.text
    assert "not in the model: 5 (extra0, extra1, extra2, ...); not in the file: bias" in log.text


class Unsafe:
    """Runs a command when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def broken_files(folder, model):
    """One bad file each, by its kind."""
    complete = folder / "complete.pth"
    torch.save({"model": model.state_dict()}, complete)
    (folder / "truncated.pth").write_bytes(complete.read_bytes()[:-200])
    (folder / "empty.pth").touch()
    (folder / "truncated.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    torch.save({"model": model.state_dict(), "x": Unsafe(folder / "ran")}, folder / "unsafe.pth")
    (folder / "model_zoo.pkl").write_bytes(
        pickle.dumps({"model": Unsafe(folder / "ran")}, protocol=2)
    )
    torch.save([1, 2], folder / "list.pth")
    torch.save({"model": {"weight": "no tensor"}}, folder / "no_tensors.pth")


@pytest.mark.parametrize(
    "name",
    [
        "missing.pth",
        "truncated.pth",
        "empty.pth",
        "truncated.safetensors",
        "unsafe.pth",
        "model_zoo.pkl",
        "list.pth",
        "no_tensors.pth",
    ],
)
def test_a_bad_file_is_refused_with_one_line_that_names_it(model, tmp_path, name):
    broken_files(tmp_path, model)
    before = model.weight.clone()
    with pytest.raises(UserError, match=name) as error:
        Checkpointer(model).load(str(tmp_path / name))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()
    assert torch.equal(model.weight, before)


def test_a_checkpoint_of_another_model_names_the_file(tmp_path):
    torch.save(published(tiny_model(*OFT)), tmp_path / "model_1.pth")
    with pytest.raises(UserError, match=r"model_1\.pth: the checkpoint's model is H-CLIP"):
        Checkpointer(tiny_model()).load(str(tmp_path / "model_1.pth"))


@pytest.mark.parametrize("name", ["model_1.pth", ""])
def test_a_tag_without_its_file(tmp_path, name):
    (tmp_path / "last_checkpoint").write_text(name)
    with pytest.raises(UserError, match=f"last_checkpoint points to '{re.escape(name)}'"):
        last_checkpoint(str(tmp_path))


def test_resuming_from_weights_alone(model, tmp_path):
    torch.save({"model": model.state_dict()}, tmp_path / "model_1.pth")
    (tmp_path / "last_checkpoint").write_text("model_1.pth")
    with pytest.raises(UserError, match="no counter state to resume from"):
        Checkpointer(model, str(tmp_path), counter=Counter()).resume_or_load("", resume=True)


def test_training_state_of_another_config(model, tmp_path):
    optimizer = torch.optim.AdamW(model.parameters())
    Checkpointer(model, str(tmp_path), optimizer=optimizer).save("model_1")
    other = torch.optim.AdamW([model.weight])
    checkpointer = Checkpointer(model, str(tmp_path), optimizer=other)
    with pytest.raises(UserError, match=r"model_1\.pth: its optimizer state does not fit"):
        checkpointer.resume_or_load("", resume=True)


# What the model says of itself


def test_a_training_starts_from_what_fits_and_one_line_says_what(tmp_path, log):
    source, model = tiny_model(), tiny_model(*OFT)
    torch.save({"model": published(source)}, tmp_path / "model.pth")
    with torch.no_grad():
        model.sem_seg_head.clip.text.text_projection.zero_()
    checkpointer = Checkpointer(model, str(tmp_path), counter=Counter())
    assert checkpointer.resume_or_load(str(tmp_path / "model.pth")) == {}
    own = model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in source.state_dict().items())
    assert (
        f"MODEL.WEIGHTS {tmp_path}/model.pth (format: CAT-Seg): loaded: CLIP, aggregator; "
        "newly initialized: OFT adapters; not used: nothing" in log.text
    )


def test_to_resume_is_strict_and_to_load_is_not(tmp_path, log):
    model = tiny_model(*ENHANCED)
    state = {name: t for name, t in model.state_dict().items() if name != "hpa.prototypes"}
    path = tmp_path / "model_1.pth"
    torch.save({"model": state}, path)
    Checkpointer(model, str(tmp_path)).load(str(path))
    assert "(format: ours); not in the model: none; not in the file: hpa.prototypes" in log.text
    (tmp_path / "last_checkpoint").write_text(path.name)
    with pytest.raises(UserError, match=r"last_checkpoint: .*model_1\.pth: the checkpoint's .*HPA"):
        Checkpointer(model, str(tmp_path)).resume_or_load("")


def averaged(tmp_path, model):
    moving = {name: value + 1 for name, value in model.state_dict().items()}
    content = {"model": model.state_dict(), "model_ema": moving}
    torch.save(content, tmp_path / "both.pth")
    torch.save({"ema_state": {"module": moving}}, tmp_path / "moving.pth")
    torch.save({"model": model.state_dict()}, tmp_path / "plain.pth")


@pytest.mark.parametrize(
    ("file", "ask", "offset", "said"),
    [
        ("both", False, 0, "using the raw weights, not the moving average"),
        (
            "both",
            True,
            1,
            "using the moving average (EMA) of the weights (set by MODEL.WEIGHTS_EMA)",
        ),
        (
            "moving",
            False,
            1,
            "using the moving average (EMA) of the weights (the file has no others)",
        ),
        (
            "moving",
            True,
            1,
            "using the moving average (EMA) of the weights (the file has no others)",
        ),
        ("plain", False, 0, ""),
    ],
)
def test_the_config_chooses_between_weights_and_their_average(
    tmp_path, model, log, file, ask, offset, said
):
    averaged(tmp_path, model)
    other = other_model()
    Checkpointer(other, averaged=ask).load(str(tmp_path / f"{file}.pth"))
    assert torch.equal(other.weight, model.weight + offset)
    assert said in log.text and ("moving average" in log.text) == bool(said)


def test_an_average_that_is_not_there_is_said(tmp_path, model, log):
    """The same keys may train from another program's average, and evaluate what came of it."""
    averaged(tmp_path, model)
    other = other_model()
    Checkpointer(other, averaged=True).load(str(tmp_path / "plain.pth"))
    assert torch.equal(other.weight, model.weight)
    assert "plain.pth has no moving average (EMA); using the raw weights" in log.text


def test_a_run_that_started_from_an_average_resumes_from_its_own_weights(tmp_path, model):
    Checkpointer(model, str(tmp_path), averaged=True).save("model_1")
    other = other_model()
    Checkpointer(other, str(tmp_path), averaged=True).resume_or_load("")
    assert torch.equal(other.weight, model.weight)


def test_a_bad_file_to_resume_from_is_called_that(tmp_path, model):
    Checkpointer(model, str(tmp_path)).save("model_1")
    (tmp_path / "model_1.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"^last_checkpoint: .*model_1\.pth is empty"):
        Checkpointer(model, str(tmp_path)).resume_or_load("")
