"""Files from the Hub: what is fetched, what is kept, and what is said when it fails."""

from __future__ import annotations

import hashlib
import resource
import time
from pathlib import Path

import pytest

from cat_seg.errors import UserError
from cat_seg.hub import ModelEntry, locate, register_model
from cat_seg.hub.download import Repo, fetch
from cat_seg.hub.locating import weights_file
from tests.hub.hub_server import Client, Hub

CONTENT = bytes(range(256)) * 4000
OTHER = CONTENT[::-1]
FILES = {"model.safetensors": CONTENT, "config.yaml": b"VERSION: 2\n"}


def weights_of(source: str) -> bytes:
    return weights_file(source).read_bytes()


def located(source: str, revision: str | None = None) -> dict[str, str | None]:
    files = locate(source, revision)
    return {name: None if file is None else str(file) for name, file in files._asdict().items()}


def register_and_locate(entry: ModelEntry) -> bytes:
    register_model(entry)
    return locate(entry.name).weights.read_bytes()


def without_waiting(source: str) -> bytes:
    time.sleep = lambda seconds: None
    return weights_of(source)


def with_little_room(source: str) -> bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) // 2, resource.RLIM_INFINITY))
    return weights_of(source)


def damaged_in_between(source: str) -> bytes:
    file = weights_file(source)
    file.write_bytes(OTHER)
    return weights_of(source)


def error_of(client: Client, function: object, *arguments: object, **environ: str) -> str:
    with pytest.raises(UserError) as caught:
        client(function, *arguments, **environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_published_models_are_there_by_name(hub: Hub, client: Client) -> None:
    files = {"model_base.pth": CONTENT, "model_large.pth": OTHER}
    hub.add("hamacojr/CAT-Seg-weights", files, kind="space")
    base, large = client(located, "cat-seg-base"), client(located, "cat-seg-large")
    assert Path(base["weights"]).read_bytes() == CONTENT
    assert Path(large["weights"]).read_bytes() == OTHER
    assert base["config"].endswith("configs/vitb_384.yaml")
    assert large["config"].endswith("configs/vitl_336.yaml")
    assert base["name"] == "cat-seg-base"


def test_a_file_in_the_cache_is_not_downloaded_again(hub: Hub, client: Client) -> None:
    hub.add("me/model", FILES)
    assert client(weights_of, "me/model") == CONTENT
    before = len(hub.downloads())
    assert client(weights_of, "me/model") == CONTENT
    assert len(hub.downloads()) == before > 0


def test_a_repository_brings_config_and_vocabulary(hub: Hub, client: Client) -> None:
    config = (
        b"MODEL:\n  SEM_SEG_HEAD:\n"
        b"    {TRAIN_CLASS_JSON: vocabulary.json, CLIP_PRETRAINED: clip_config.json}\n"
    )
    more = {"config.yaml": config, "vocabulary.json": b'["cat"]', "clip_config.json": b"{}"}
    hub.add("me/model", FILES | more)
    found = client(located, "me/model")
    assert Path(found["config"]).read_bytes() == config
    assert Path(found["vocabulary"]).read_bytes() == b'["cat"]'
    assert Path(found["config"]).with_name("clip_config.json").read_bytes() == b"{}"


def test_a_training_pushed_as_it_is_has_its_weights_found(hub: Hub, client: Client) -> None:
    hub.add("me/model", {"model_final.pth": CONTENT})
    assert client(weights_of, "me/model") == CONTENT
    assert client(weights_of, "me/model", HF_HUB_OFFLINE="1") == CONTENT


def test_revisions(hub: Hub, client: Client) -> None:
    old = hub.add("me/model", FILES, revision="v1")
    hub.add("me/model", FILES | {"model.safetensors": OTHER})
    assert client(weights_of, "me/model") == OTHER
    assert client(weights_of, "me/model@v1") == CONTENT
    assert client(weights_of, f"me/model@{old}") == CONTENT
    assert Path(client(located, "me/model", "v1")["weights"]).read_bytes() == CONTENT
    assert "no revision 'v2'" in error_of(client, weights_of, "me/model@v2")
    assert "another revision" in error_of(client, located, "me/model@v1", "v2")


def test_an_update_is_fetched_in_a_new_process(hub: Hub, client: Client) -> None:
    hub.add("me/model", FILES)
    assert client(weights_of, "me/model") == CONTENT
    hub.add("me/model", FILES | {"model.safetensors": OTHER})
    assert client(weights_of, "me/model") == OTHER


def test_an_interrupted_download_goes_on_where_it_was(hub: Hub, client: Client) -> None:
    content = CONTENT * 12  # more than the 10 MiB that the client writes at a time
    hub.add("me/model", FILES | {"model.safetensors": content})
    hub.cuts = [11_000_000]
    assert client(without_waiting, "me/model") == content
    ranges = [one.range for one in hub.downloads() if "/cdn/" in one.path]
    assert ranges == [None, f"bytes={10 * 2**20}-"]


def test_a_download_that_stays_cut_off_leaves_nothing(hub: Hub, client: Client) -> None:
    hub.add("me/model", FILES)
    hub.cuts = [300_000, *[0] * 20]
    message = error_of(client, without_waiting, "me/model")
    assert "model.safetensors of me/model" in message
    assert client.left_over() == []
    hub.cuts = []
    assert client(weights_of, "me/model") == CONTENT


def test_a_damaged_transfer_is_not_kept(hub: Hub, client: Client) -> None:
    hub.add("me/model", FILES)
    hub.blobs[hashlib.sha256(CONTENT).hexdigest()] = OTHER
    assert "is damaged; it was not kept" in error_of(client, weights_of, "me/model")
    assert not any(path.is_file() for path in client.home.rglob("*.safetensors"))


def test_a_damaged_file_in_the_cache_is_replaced(hub: Hub, client: Client) -> None:
    hub.add("me/model", FILES)
    assert client(damaged_in_between, "me/model") == CONTENT


@pytest.mark.parametrize(
    ("recorded", "message"),
    [({"sha256": "0" * 64}, "instead of 000"), ({"size": 5}, "but 5 are recorded")],
)
def test_another_file_than_the_recorded_one_is_refused(
    hub: Hub, client: Client, recorded: dict, message: str
) -> None:
    hub.add("me/model", FILES)
    entry = ModelEntry("mine", repo_id="me/model", config="configs/vitb_384.yaml", **recorded)
    assert message in error_of(client, register_and_locate, entry)
    assert not any(path.is_file() for path in client.home.rglob("*.safetensors"))


def test_a_registered_model_with_its_recorded_file(hub: Hub, client: Client) -> None:
    hub.add("me/models", {"a/model.pth": CONTENT, "a/config.yaml": b"VERSION: 2\n"})
    digest = hashlib.sha256(CONTENT).hexdigest()
    entry = ModelEntry(
        *("mine", "me/models"), filename="a/model.pth", size=len(CONTENT), sha256=digest
    )
    assert client(register_and_locate, entry) == CONTENT


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "", ("HTTP 401", "hf auth login")),
        (403, "GatedRepo", ("access to me/model is restricted", "hf auth login")),
        (403, "", ("HTTP 403", "HF_TOKEN")),
        (401, "RepoNotFound", ("no model me/model", "if it is private")),
        (404, "RepoNotFound", ("no model me/model",)),
    ],
)
def test_refusals_say_what_to_do(
    hub: Hub, client: Client, status: int, code: str, words: tuple[str, ...]
) -> None:
    hub.add("me/model", FILES)
    hub.refused["me/model"] = (status, code)
    message = error_of(client, weights_of, "me/model")
    assert all(word in message for word in words), message


def test_a_token_opens_a_private_repository(hub: Hub, client: Client) -> None:
    hub.add("me/model", FILES)
    hub.refused["me/model"], hub.token = (401, "RepoNotFound"), "secret"
    assert client(weights_of, "me/model", HF_TOKEN="secret") == CONTENT


def test_missing_files(hub: Hub, client: Client) -> None:
    hub.add("me/model", {"README.md": b""})
    assert "no weights (model.safetensors or" in error_of(client, weights_of, "me/model")
    assert "has no config.yaml" in error_of(client, located, "me/model")
    repo = Repo("me/model")
    assert "has no file x.json" in error_of(client, fetch, repo, "x.json")


def test_offline_mode_takes_the_cache(hub: Hub, client: Client) -> None:
    hub.add("me/model", FILES)
    message = error_of(client, weights_of, "me/model", HF_HUB_OFFLINE="1")
    assert message.startswith("HF_HUB_OFFLINE is set, and ")
    assert hub.requests == []
    client(located, "me/model")
    asked = len(hub.requests)
    assert client(weights_of, "me/model", HF_HUB_OFFLINE="1") == CONTENT
    assert client(located, "me/model", HF_HUB_OFFLINE="1")["name"] == "me/model"
    assert len(hub.requests) == asked


def test_without_a_server_the_cache_is_taken(hub: Hub, client: Client) -> None:
    hub.add("me/model", FILES)
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    message = error_of(client, weights_of, "me/model", **nowhere)
    assert "cannot download model.safetensors of me/model from http://127.0.0.1:9" in message
    assert client(weights_of, "me/model") == CONTENT
    assert client(weights_of, "me/model", **nowhere) == CONTENT


def test_a_server_in_trouble_is_asked_once(hub: Hub, client: Client) -> None:
    hub.refused["me/model"] = (503, "")
    assert "HTTP 503" in error_of(client, weights_of, "me/model")
    assert len(hub.requests) == 1


def test_a_full_disk_leaves_nothing(hub: Hub, client: Client) -> None:
    hub.add("me/model", FILES)
    message = error_of(client, with_little_room, "me/model")
    assert message.startswith("no space for model.safetensors of me/model")
    assert client.left_over() == []
    hub.claimed_size = 10**18
    message = error_of(client, weights_of, "me/model")
    assert "needs 1000000000000 MB" in message and "HF_HUB_CACHE" in message
