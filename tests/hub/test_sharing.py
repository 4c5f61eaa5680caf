"""Upload to the Hub, and loading from there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cat_seg.errors import UserError
from cat_seg.hub import locate
from cat_seg.hub.pretrained import push_to_hub, save_pretrained
from tests.hub.hub_server import Client, Hub
from tests.hub.test_pretrained import IMAGE, loaded, model_and_cfg
from tests.published import MODELS
from tests.tiny import answer, write_clip


def answer_of(source: str) -> torch.Tensor:
    return answer(loaded(locate(source)), IMAGE)[0].numpy()


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
