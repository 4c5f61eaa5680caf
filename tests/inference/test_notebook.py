"""examples/quickstart.ipynb runs from its first cell to its last."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image

from cat_seg.utils.paths import REPO_ROOT
from tests.tiny import tiny_cfg, tiny_model

NOTEBOOK = REPO_ROOT / "examples" / "quickstart.ipynb"


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch) -> nbformat.NotebookNode:
    """The notebook, executed on a tiny model and random images."""
    torch.save({"model": tiny_model().state_dict()}, tmp_path / "model_final.pth")
    (tmp_path / "config.yaml").write_text(tiny_cfg(tmp_path).dump())
    (tmp_path / "images").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    monkeypatch.setenv("HPS_SEG_MODEL", str(tmp_path))
    monkeypatch.setenv("HPS_SEG_IMAGES", str(tmp_path / "images"))
    monkeypatch.setenv("PYTHONPATH", str(REPO_ROOT))
    content = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in content.cells)
    client = NotebookClient(
        content, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    return client.execute()


def test_results_show_themselves(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output.data["image/png"] for output in outputs if "data" in output]
    assert len(pictures) == 3  # overlay, confidence, overlay with unknown pixels
    for picture in pictures:
        with Image.open(BytesIO(base64.b64decode(picture))) as image:
            assert image.width >= 384
    text = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert "(40, 60) int64" in text
    assert "of the pixels have a confidence below" in text
    assert text.endswith("8 files\n")
