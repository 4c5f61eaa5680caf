"""A file that is not a checkpoint is identified in one line with the config key."""

from __future__ import annotations

import argparse
import gzip
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cat_seg.checkpoint.reading import read_file, read_tensors
from cat_seg.errors import UserError

KEY = "MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS"
PAGE = b"<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 123456\n"


def refused(path) -> str:
    with pytest.raises(UserError) as error:
        read_tensors(path, KEY)
    message = str(error.value)
    assert message.startswith(f"{KEY}: ") and str(path) in message
    assert message.isprintable()  # one line, no escape codes
    assert "weights_only" not in message and "add_safe_globals" not in message
    return message


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pkl", ""])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; download it again"),
        (b" \n", "is empty; download it again"),
        (PAGE, "is a web page, not a checkpoint: the download failed"),
        (b"\xef\xbb\xbf\n  <html lang='de'>\xc3\xa4</html>", "is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (POINTER, "is a Git LFS pointer, not the file itself; run git lfs pull"),
        (
            gzip.compress(b"weights", mtime=0),
            "is a gzip archive, not a checkpoint; unpack it first",
        ),
    ],
)
def test_downloads_that_went_wrong(tmp_path, content, expected, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert expected in refused(path)


@pytest.mark.parametrize("content", [b'{"error": "Entry not found"}', b"Not Found", b"404: ..."])
def test_an_answer_in_words_is_quoted(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    assert repr(content.decode()) in refused(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_cut_file(tmp_path, kind, share):
    path = tmp_path / "model.pth"
    tensors = {f"weight{i}": torch.randn(50, 50) for i in range(5)}
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "is truncated" in refused(path)


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_is_not_read(tmp_path, protocol):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": {"weight": np.zeros(3)}}, protocol))
    assert "is a plain pickle file" in refused(path)


def test_archives_around_something_else(tmp_path):
    (tmp_path / "readme.txt").write_text("text")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.write(tmp_path / "readme.txt", "readme.txt")
    assert "zip archive that contains 'readme.txt'" in refused(tmp_path / "model.zip")
    with tarfile.open(tmp_path / "model.tar", "w") as archive:
        archive.add(tmp_path / "readme.txt")
    assert "is a tar archive" in refused(tmp_path / "model.tar")


def test_a_python_object_is_named(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=1)}, path)
    message = refused(path)
    assert "argparse.Namespace" in message and "state_dict" in message


def test_the_content_counts_not_the_suffix(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "model.bin")
    torch.save({"weight": torch.ones(3)}, tmp_path / "model.pkl")
    for name in ("model.bin", "model.pkl"):
        assert torch.equal(read_tensors(tmp_path / name)["weight"], torch.ones(3))


@pytest.mark.parametrize("length", [0x80, 0x8B1F, 0x4280, 0x2180])
def test_a_safetensors_header_of_any_length(tmp_path, length):
    """Its first bytes may be those of a pickle or an archive."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + b"\0\0\x80?")
    assert read_file(path)["w"].item() == 1
