"""Reading model files of each kind, and refusing what is unsafe or damaged."""

from __future__ import annotations

import pickle

import pytest
import torch
from detectron2.utils.file_io import PathManager
from safetensors.torch import save_file
from torch import nn

from cat_seg.checkpoint.reading import local_file, read_file, read_tensors
from cat_seg.errors import UserError

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


def refused(path) -> str:
    with pytest.raises(UserError) as error:
        read_tensors(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def assert_tensors(found):
    assert set(found) == set(TENSORS)
    for name, value in TENSORS.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"model": TENSORS, "iteration": 7, "optimizer": {"state": {}}},
        {"state_dict": TENSORS, "epoch": 1, "name": "run"},
        {"model": {f"module.{name}": value for name, value in TENSORS.items()}},
    ],
    ids=["plain", "model", "state_dict", "module"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files(tmp_path, content, zipped):
    path = tmp_path / "model.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_tensors(read_tensors(path))


def test_what_is_no_tensor_is_left_out(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(TENSORS | {"note": "text", "step": 3}, path)
    assert_tensors(read_tensors(path))
    assert read_file(path)["note"] == "text"


def test_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    assert_tensors(read_tensors(path))


def test_torchscript_archive(tmp_path):
    path = tmp_path / "model.pt"
    layer = nn.Linear(3, 2).half()
    torch.jit.trace(layer.float(), torch.zeros(1, 3)).half().save(str(path))
    found = read_tensors(path)
    assert set(found) == {"weight", "bias"}
    assert torch.equal(found["weight"], layer.weight)
    assert found["weight"].dtype == torch.float16


class Payload:
    """Writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("saved_by", ["torch", "pickle"])
def test_code_in_a_file_never_runs(tmp_path, saved_by):
    touched, path = tmp_path / "touched", tmp_path / "model.pth"
    content = {"model": TENSORS, "extra": Payload(touched)}
    if saved_by == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    refused(path)
    assert not touched.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_cut_file_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"model{suffix}"
    tensors = {"weight": torch.zeros(100, 100)}
    torch.save(tensors, path) if suffix == ".pth" else save_file(tensors, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path)


@pytest.mark.parametrize(
    "content", [b"a line of text\n", b"{}", b"PK\x03\x04 no archive", b"\x80\x04."]
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("content", [[torch.ones(1)], torch.ones(1), "text", 3])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    refused(path)


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"a": 1}])
def test_a_file_without_tensors_is_refused(tmp_path, content):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    assert "no model weights" in refused(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "absent.pth")
    refused(tmp_path / "absent.safetensors")
    (tmp_path / "folder.pth").mkdir()
    refused(tmp_path / "folder.pth")


def test_local_file(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    path.write_bytes(b"")
    assert local_file(str(path)) == path
    monkeypatch.chdir(tmp_path)
    assert local_file("model.pth").resolve() == path
    assert local_file("configs/config.yaml").is_file()  # from the repository root


@pytest.mark.parametrize("weights", ["absent.pth", "/no/such/model.pth", "configs"])
def test_no_such_file_names_key_and_file(weights):
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS") as error:
        local_file(weights)
    assert weights in str(error.value)


def test_a_url_goes_through_detectron2(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    path.write_bytes(b"")
    asked = []
    monkeypatch.setattr(PathManager, "get_local_path", lambda url: asked.append(url) or str(path))
    assert local_file("https://example.org/model.pth") == path
    assert asked == ["https://example.org/model.pth"]


def test_a_url_out_of_reach_is_one_line(monkeypatch):
    def fail(url):
        raise OSError("Name or service not known")

    monkeypatch.setattr(PathManager, "get_local_path", fail)
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS") as error:
        local_file("https://example.org/model.pth")
    assert "https://example.org/model.pth" in str(error.value)
    assert "\n" not in str(error.value)
