"""CLIP architectures: the sizes of known ones, and one line for what is not a plain ViT."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch

from cat_seg.checkpoint.clip_formats import convert_clip
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.image_tower import ImageTower
from cat_seg.modeling.clip.spec import TowerSpec
from cat_seg.modeling.clip.text_tower import TextTower
from tests.tiny import write_clip


def refused(name: str) -> str:
    """The one line that a name is refused with."""
    with pytest.raises(ValueError) as error:
        Architecture.from_name(name)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("name ")
    return str(error.value)


def taps(name: str) -> tuple[int, ...]:
    with torch.device("meta"):
        return ImageTower(Architecture.from_name(name), (24, 24)).taps


def test_vit_b_16():
    found = Architecture.from_name("ViT-B/16")
    assert found.image == TowerSpec(768, 12, 12, 3072, "quick_gelu")
    assert found.text == TowerSpec(512, 12, 8, 2048, "quick_gelu")
    assert (found.embed_dim, found.patch_size, found.pretrained_grid) == (512, 16, 14)
    assert (found.context_length, found.vocab_size) == (77, 49408)
    assert found.quick_gelu
    assert taps("ViT-B/16") == (3, 7)


def test_vit_l_14_336():
    found = Architecture.from_name("ViT-L/14@336px")
    assert found.image == TowerSpec(1024, 24, 16, 4096, "quick_gelu")
    assert found.text == TowerSpec(768, 12, 12, 3072, "quick_gelu")
    assert (found.embed_dim, found.patch_size, found.pretrained_grid) == (768, 14, 24)
    assert found.quick_gelu
    assert taps("ViT-L/14@336px") == (7, 15)


def test_input_size_is_the_grid_in_patches():
    with torch.device("meta"):
        base = ImageTower(Architecture.from_name("ViT-B/16"), (24, 24))
        large = ImageTower(Architecture.from_name("ViT-L/14@336px"), (24, 24))
    assert base.input_size == (384, 384) and large.input_size == (336, 336)


def test_open_clip_names_tell_the_activation():
    assert Architecture.from_name("ViT-B-16-quickgelu").quick_gelu
    assert not Architecture.from_name("ViT-B-16").quick_gelu


@pytest.mark.parametrize("name", ["ViT-B-32-256", "ViT-L-14-336", "ViT-H-14", "ViT-g-14"])
def test_towers_have_the_shapes_of_open_clips(name):
    with torch.device("meta"):
        theirs = open_clip.CLIP(**open_clip.get_model_config(name)).state_dict()
        architecture = Architecture.from_name(name)
        grid = (architecture.pretrained_grid,) * 2
        towers = {"text": TextTower(architecture), "image": ImageTower(architecture, grid)}
    wanted = {key: value.shape for key, value in convert_clip(theirs).tensors.items()}
    ours = {
        f"{part}.{key}": value.shape
        for part, tower in towers.items()
        for key, value in tower.state_dict().items()
    }
    assert ours == wanted


def test_every_open_clip_name_builds_or_is_one_line():
    plain = []
    for name in open_clip.list_models():
        try:
            plain.append(Architecture.from_name(name).open_clip_name)
        except ValueError as error:
            assert "\n" not in str(error) and name in str(error)
    assert {"ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-H-14", "ViT-bigG-14"} <= set(plain)


@pytest.mark.parametrize(
    "name",
    [
        "RN50",  # ResNet
        "RN50x4-quickgelu",
        "convnext_base",  # timm
        "vit_medium_patch16_gap_256",
        "PE-Core-B-16",
        "nllb-clip-base-siglip",  # SigLIP's image tower
        "roberta-ViT-B-32",  # another text tower
        "coca_ViT-B-32",
        "ViT-L-14-CLIPA",
        "EVA02-E-14",  # a block of another order
    ],
)
def test_other_kinds_of_towers_are_refused(name):
    assert name in open_clip.list_models()
    message = refused(name)
    assert name in message and "ViT-B/16" in message


@pytest.mark.parametrize("name", ["ViT-Z/99", "VIT-B/16 ", "", "vitb", "ViT-B/16@384"])
def test_an_unknown_name_is_refused(name):
    assert repr(name) in refused(name)


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:absent", "local-dir:./absent"])
def test_names_of_other_places_are_refused_without_a_look(name, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(open_clip.factory, "_get_hf_config", no_network, raising=False)
    refused(name)


def test_a_model_config_file(tmp_path):
    found = Architecture.from_name(str(write_clip(tmp_path)))
    assert found.image == TowerSpec(256, 3, 4, 1024, "quick_gelu")
    assert found.text == TowerSpec(128, 2, 2, 512, "quick_gelu")
    assert (found.patch_size, found.pretrained_grid, found.context_length) == (16, 4, 20)
    assert found.quick_gelu
    path = write_clip(tmp_path, "gelu", quick_gelu=False, vision_cfg__mlp_ratio=2.5)
    assert not Architecture.from_name(str(path)).quick_gelu
    assert Architecture.from_name(str(path)).image.mlp_width == 640


def test_a_model_config_resolves_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Architecture.from_name("configs/quickstart_clip.json").image.width % 128 == 0


@pytest.mark.parametrize(
    "content",
    ["{", "", "[]", "5", "null", '"ViT"', "{}", '{"embed_dim": 4, "vision_cfg": {}}'],
)
def test_a_broken_model_config_is_one_line(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_text(content)
    assert str(path) in refused(str(path))


def test_a_missing_model_config_is_one_line(tmp_path):
    assert "absent.json" in refused(str(tmp_path / "absent.json"))


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_cfg__layers": 2},  # too few for two levels of guidance
        {"vision_cfg__layers": [3, 4, 6, 3]},
        {"vision_cfg__ls_init_value": 0.1},
        {"vision_cfg__timm_model_name": "vit_base_patch16_224"},
        {"text_cfg__no_causal_mask": True},
        {"text_cfg__pool_type": "last"},
        {"text_cfg__embed_cls": True},
        {"text_cfg__hf_model_name": "roberta-base"},
        {"multimodal_cfg": {}},
    ],
    ids=str,
)
def test_a_model_config_with_unusual_towers_is_refused(tmp_path, changes):
    refused(str(write_clip(tmp_path, "odd", **changes)))


def test_two_configs_of_one_name_are_kept_apart(tmp_path):
    """Each path means its own file, whatever was read before."""
    other = tmp_path / "other"
    other.mkdir()
    first, second = write_clip(tmp_path), write_clip(other, text_cfg__width=256)
    for _ in range(2):
        assert Architecture.from_name(str(first)).text.width == 128
        assert Architecture.from_name(str(second)).text.width == 256


def test_a_config_does_not_change_what_a_published_name_means(tmp_path):
    write_clip(tmp_path, "ViT-B-16-quickgelu")
    before = Architecture.from_name("ViT-B/16")
    path = Path(tmp_path / "ViT-B-16-quickgelu.json")
    try:
        assert Architecture.from_name(str(path)).image.width == 256
        assert Architecture.from_name("ViT-B/16") == before
    finally:  # leave open_clip's registry as it was
        if path in open_clip.factory._MODEL_CONFIG_PATHS:
            open_clip.factory._MODEL_CONFIG_PATHS.remove(path)
            open_clip.factory._rescan_model_configs()
    assert Architecture.from_name("ViT-B/16") == before


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(tmp_path):
    assert "vocab_size" in refused(str(write_clip(tmp_path, "few", text_cfg__vocab_size=1000)))
