"""What stands for a model, on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cat_seg.checkpoint.reading import local_file
from cat_seg.configuration import load_config
from cat_seg.errors import UserError
from cat_seg.evaluation.record import weights_record
from cat_seg.hub import MODELS, ModelEntry, list_models, locate, register_model


@pytest.fixture
def registry() -> Iterator[dict[str, ModelEntry]]:
    """The registry, restored afterwards."""
    before = dict(MODELS)
    yield MODELS
    MODELS.clear()
    MODELS.update(before)


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("VERSION: 2\n" if name.endswith(".yaml") else "[]")
    return folder


def test_a_folder_of_save_pretrained(tmp_path: Path) -> None:
    folder = write(tmp_path, "config.yaml", "model.safetensors", "vocabulary.json")
    files = locate(folder)
    assert files == (
        *(folder / "config.yaml", folder / "model.safetensors", folder / "vocabulary.json"),
        str(folder),
    )
    assert local_file(str(folder)) == folder / "model.safetensors"


def test_a_training_finished_or_not(tmp_path: Path) -> None:
    folder = write(tmp_path, "config.yaml", "model_0000009.pth", "last_checkpoint")
    (folder / "last_checkpoint").write_text("model_0000009.pth")
    assert locate(folder).weights == folder / "model_0000009.pth"
    write(folder, "model_final.pth")
    assert locate(folder).weights == folder / "model_final.pth"
    assert locate(folder).vocabulary is None


def test_a_file_with_its_config(tmp_path: Path) -> None:
    file = write(tmp_path, "mine.pth") / "mine.pth"
    with pytest.raises(UserError, match=r"has no config.yaml; name the config"):
        locate(file)
    assert locate(file, config_file="configs/vitb_384.yaml").config.name == "vitb_384.yaml"
    write(tmp_path, "config.yaml")
    assert locate(file).config == tmp_path / "config.yaml"
    large = write(tmp_path / "downloads", "model_large.pth") / "model_large.pth"
    assert locate(large).config.name == "vitl_336.yaml"


def test_what_exists_is_taken_before_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "me/model", "config.yaml", "model.safetensors")
    write(tmp_path / "cat-seg-base", "config.yaml", "model.safetensors")
    for name in ("me/model", "cat-seg-base"):
        assert locate(name).weights == Path(name, "model.safetensors")
        assert local_file(name) == Path(name, "model.safetensors")
    with pytest.raises(UserError, match="a local path, which has no revision 'v1'"):
        locate("me/model", revision="v1")


@pytest.mark.parametrize(
    "name", ["me/model.pth", "a/b/c", "./model", "~/model", "/model", "output/x", "a\\b", "-a/b"]
)
def test_a_mistyped_path_is_a_missing_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "output")
    monkeypatch.chdir(tmp_path)
    for find in (locate, local_file):
        with pytest.raises(UserError, match="no file") as caught:
            find(name)
        assert name in str(caught.value).replace("\\\\", "\\")


def test_a_mistyped_name_gets_the_closest_one() -> None:
    with pytest.raises(UserError, match="did you mean cat-seg-large"):
        locate("catseg-large")
    with pytest.raises(UserError, match=r"^MODEL.WEIGHTS: no file base, and no model has that"):
        local_file("base")
    with pytest.raises(UserError, match="no model is named"):
        locate("")


def test_an_empty_folder_and_a_missing_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no weights"):
        locate(tmp_path)
    write(tmp_path, "model.safetensors")
    with pytest.raises(UserError, match=r"no config file nothing.yaml"):
        locate(tmp_path, config_file="nothing.yaml")


def test_models_of_ones_own(registry: dict, tmp_path: Path) -> None:
    write(tmp_path, "config.yaml", "model.safetensors")
    register_model(ModelEntry("mine", path=str(tmp_path)))
    assert list_models("m*") == ["mine"]
    assert list_models() == ["cat-seg-base", "cat-seg-large", "hyro-base", "mine"]
    assert locate("mine").weights == tmp_path / "model.safetensors"
    assert locate("mine").name == "mine"
    assert local_file("mine") == tmp_path / "model.safetensors"
    digest = hashlib.sha256(b"[]").hexdigest()
    assert weights_record("mine") == {"file": "mine", "sha256": digest}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a/b", "path": "x"}, "no model name"),
        ({"name": "cat-seg-base", "path": "x"}, "already"),
        ({"name": "mine"}, "either a repo_id or a path"),
        ({"name": "mine", "path": "x", "sha256": "ABC"}, "no SHA-256"),
    ],
)
def test_bad_entries_are_refused(registry: dict, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        register_model(ModelEntry(**values))


def test_a_config_finds_the_class_list_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write(tmp_path / "model", "vocabulary.json")
    (model / "config.yaml").write_text(
        "MODEL: {SEM_SEG_HEAD: {TRAIN_CLASS_JSON: vocabulary.json}}\n"
    )
    write(tmp_path, "vocabulary.json")  # of something else
    monkeypatch.chdir(tmp_path)
    cfg = load_config("model/config.yaml")
    found = Path(cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON)
    assert found == model / "vocabulary.json"
