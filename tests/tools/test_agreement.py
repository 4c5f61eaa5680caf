"""What a lossy setting changes, on a dataset of one image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.color_model import NearestColor, write_config
from tools import agreement

PIXELS = np.array([[[255, 0, 0], [255, 0, 0]], [[0, 255, 0], [0, 0, 255]]], np.uint8)
LABELS = np.array([[0, 0], [1, 2]], np.uint8)  # red, lime and blue


@pytest.fixture
def config(tmp_path):
    for folder, pixels in (("images", PIXELS), ("labels", LABELS)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "one.png")
    file = write_config(tmp_path)
    places = {"IMAGES": "images", "LABELS": "labels", "CLASSES": "classes.json"}
    own = {key: str(tmp_path / name) for key, name in places.items()}
    with open(file, "a") as stream:
        stream.write(f"DATASETS: {{TEST: [agreement], CUSTOM: {{agreement: {own}}}}}\n")
    return file


def test_changed_labels_and_the_metric_of_each_setting(config, monkeypatch, capsys):
    def load(cfg, weights):
        """With mixed precision, a model that takes everything for the first class."""
        assert weights == "model.pth"
        model = NearestColor(cfg)
        torch.nn.init.constant_(model.sharpness, 0.0 if cfg.TEST.AMP.ENABLED else 10.0)
        return model

    monkeypatch.setattr(agreement, "load_model", load)
    changes = ["--change", "TEST.AMP.ENABLED", "True", "--change", "TEST.MOST_CLASSES", "2"]
    workers = ["DATALOADER.NUM_WORKERS", "0"]
    agreement.main(
        ["--config-file", config, *changes, "--opts", "MODEL.WEIGHTS", "model.pth", *workers]
    )
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
    ]
    assert rows[0] == ["setting", "labels changed, %", "mIoU agreement", "time"]
    assert rows[2] == ["no change", "0.000", "100.00", "1.00"]
    assert rows[3][:3] == ["TEST.AMP.ENABLED True", "50.000", "16.67"]
    assert rows[4][:3] == ["TEST.MOST_CLASSES 2", "0.000", "100.00"]


def test_there_must_be_weights(config, capsys):
    with pytest.raises(SystemExit) as ended:
        agreement.main(["--config-file", config, "--change", "TEST.MOST_CLASSES", "2"])
    assert ended.value.code == 2
    assert "MODEL.WEIGHTS is empty" in capsys.readouterr().err
