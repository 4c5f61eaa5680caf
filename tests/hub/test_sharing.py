"""Upload to the Hub, and loading from there."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from cat_seg.checkpoint import Checkpointer
from cat_seg.checkpoint.reading import local_file
from cat_seg.engine import argument_parser, launch
from cat_seg.errors import UserError
from cat_seg.hub import ModelEntry, locate, register_model
from cat_seg.hub.pretrained import push_to_hub, save_pretrained
from tests.golden.weights_recipe import fill
from tests.hub.hub_server import Client, Hub
from tests.hub.test_pretrained import IMAGE, loaded, model_and_cfg
from tests.published import MODELS, published
from tests.tiny import answer, tiny_cfg, write_clip


def answer_of(source: str) -> np.ndarray:
    return answer(loaded(locate(source)), IMAGE)[0].numpy()


def registered_answer(entry: ModelEntry) -> np.ndarray:
    register_model(entry)
    return answer_of(entry.name)


def read_weights(cfg: CfgNode, args: argparse.Namespace) -> None:
    file = Path(cfg.OUTPUT_DIR, f"rank{comm.get_rank()}")
    file.write_bytes(local_file(cfg.MODEL.WEIGHTS).read_bytes())


def in_two_processes(cfg: CfgNode, folder: Path) -> list[str]:
    launch(read_weights, cfg, argument_parser().parse_args(["--num-gpus", "2", "--eval-only"]))
    return [(folder / f"rank{rank}").read_text() for rank in (0, 1)]


def test_a_model_goes_to_the_hub_and_comes_back(hub: Hub, client: Client, tmp_path: Path) -> None:
    model, cfg = model_and_cfg(tmp_path, *MODELS["HPS-Seg"])
    folder = save_pretrained(model, cfg, tmp_path / "shared")
    (folder / "private.txt").write_text("not for others")
    url = client(push_to_hub, folder, "me/model")
    commit = hub.revisions["model", "me/model"]["main"]
    assert url == f"{hub.url}/me/model/commit/{commit}"
    names = ["README.md", "clip_config.json", "config.yaml", "model.safetensors", "vocabulary.json"]
    assert sorted(hub.commits[commit]) == names
    expected = answer(model, IMAGE)[0].numpy()
    assert (client(answer_of, "me/model") == expected).all()
    assert (client(answer_of, f"me/model@{commit}", HF_HUB_OFFLINE="1") == expected).all()


def test_a_published_checkpoint_by_its_registered_name(
    hub: Hub, client: Client, tmp_path: Path
) -> None:
    model, cfg = model_and_cfg(tmp_path)
    weights = fill(published(model))
    torch.save(weights, tmp_path / "model_tiny.pth")
    content = (tmp_path / "model_tiny.pth").read_bytes()
    hub.add("me/weights", {"model_tiny.pth": content}, kind="space")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    entry = ModelEntry(
        *("tiny", "me/weights", "space", "model_tiny.pth"),
        config=str(tmp_path / "config.yaml"),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    Checkpointer(model).load(str(tmp_path / "model_tiny.pth"))
    assert (client(registered_answer, entry) == answer(model, IMAGE)[0].numpy()).all()


def test_the_processes_of_a_run_download_once(hub: Hub, client: Client, tmp_path: Path) -> None:
    hub.add("me/model", {"model.safetensors": b"weights"})
    cfg = tiny_cfg(tmp_path, "MODEL.WEIGHTS", "me/model", "OUTPUT_DIR", str(tmp_path))
    assert client(in_two_processes, cfg, tmp_path) == ["weights", "weights"]
    assert len(hub.downloads()) == 1
    assert len(hub.requests) == 3  # two HEAD requests by the process that starts the others


def test_who_is_not_logged_in_is_told_so(hub: Hub, client: Client, tmp_path: Path) -> None:
    model, cfg = model_and_cfg(tmp_path)
    folder = save_pretrained(model, cfg, tmp_path / "shared")
    hub.token = "secret"
    with pytest.raises(UserError, match=r"^upload to me/model: .*hf auth login"):
        client(push_to_hub, folder, "me/model")
    assert client(push_to_hub, folder, "me/model", HF_TOKEN="secret").startswith(hub.url)


def test_only_a_complete_folder_is_uploaded(hub: Hub, client: Client, tmp_path: Path) -> None:
    write_clip(tmp_path)
    with pytest.raises(UserError, match=r"has no model.safetensors"):
        client(push_to_hub, tmp_path, "me/model")
    assert hub.requests == []
