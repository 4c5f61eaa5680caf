"""NumPy's arrays and scalars in checkpoints: read, and believed in nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cat_seg.checkpoint.reading import read_file, read_tensors
from cat_seg.errors import UserError

NUMPY_1, NUMPY_2 = b"numpy.core.multiarray", b"numpy._core.multiarray"


def saved(path, content, module=None):
    """Save as PyTorch does; with `module`, as under the NumPy that has its functions there."""

    torch.save(content, path, _use_new_zipfile_serialization=False)
    if module is not None:
        data = path.read_bytes()
        assert NUMPY_1 in data or NUMPY_2 in data
        path.write_bytes(data.replace(NUMPY_2, module).replace(NUMPY_1, module))
    return path


@pytest.mark.parametrize("module", [NUMPY_1, NUMPY_2])
def test_scalars_beside_the_weights(tmp_path, module):
    scalars = {
        "best": np.float64(0.5),
        "epoch": np.int64(7),
        "done": np.bool_(True),
        "lr": np.float32(0.25),
        "name": np.str_("run"),
    }
    path = saved(tmp_path / "model.pth", {"model": {"w": torch.ones(2)}, **scalars}, module)
    assert torch.equal(read_tensors(path)["w"], torch.ones(2))
    content = read_file(path)
    assert (content["best"], content["epoch"], content["done"]) == (0.5, 7, True)
    assert content["lr"] == 0.25


@pytest.mark.parametrize("module", [NUMPY_1, NUMPY_2])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1", "b1", ">f4", "<i2"])
def test_arrays_for_weights(tmp_path, module, dtype):
    array = (np.arange(12).reshape(3, 4) % 3).astype(dtype)
    content = {"model": {"a": array, "b": np.asfortranarray(array), "c": array[:0]}}
    found = read_tensors(saved(tmp_path / "model.pth", content, module))
    expected = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    for name, value in (("a", expected), ("b", expected), ("c", expected[:0])):
        assert found[name].dtype == expected.dtype
        assert torch.equal(found[name], value)


@pytest.mark.parametrize("zipped", [True, False])
def test_both_kinds_of_pytorch_files(tmp_path, zipped):
    content = {"model": {"w": np.ones((2, 3), np.float32)}, "best": np.float32(1)}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_tensors(tmp_path / "model.pth")["w"], torch.ones(2, 3))


def test_arrays_of_anything_else_are_left_out(tmp_path):
    content = {"w": torch.ones(1), "objects": np.array([{}, None]), "text": np.array(["a", "b"])}
    assert set(read_tensors(saved(tmp_path / "model.pth", content))) == {"w"}


class Crafted:
    """An array whose type is said to be an object, its bytes numbers."""

    def __reduce__(self):
        kind = np.dtype("O")
        state = (1, (1,), kind, False, b"\x41" * 8)
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state


def test_bytes_never_become_objects(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"w": torch.ones(1), "x": Crafted()}, path)
    assert set(read_tensors(path)) == {"w"}


@pytest.mark.parametrize("shape", [(3,), (-1, 7), "text"])
def test_a_shape_that_is_a_lie_is_one_line(tmp_path, shape):
    class Lying:
        def __reduce__(self):
            state = (1, shape, np.dtype("f4"), False, b"\0" * 8)
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state

    path = tmp_path / "model.pth"
    torch.save({"w": torch.ones(1), "x": Lying()}, path)
    with pytest.raises(UserError) as error:
        read_tensors(path)
    assert "\n" not in str(error.value) and "model.pth" in str(error.value)
