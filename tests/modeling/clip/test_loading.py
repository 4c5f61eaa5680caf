"""Where CLIP's start weights come from, and one line where they do not."""

from __future__ import annotations

import json
import re
from urllib.error import URLError

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cat_seg.errors import UserError
from cat_seg.modeling.clip import build_clip
from tests.tiny import CONTEXT, open_clip_model, share_tokenizers, tiny_model, write_clip

TOKENS = open_clip.tokenize(["a cat", "a green dog"], context_length=CONTEXT)


@pytest.fixture(autouse=True)
def shared_tokenizers(monkeypatch):
    share_tokenizers(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clip")


@pytest.fixture(scope="module")
def config(folder):
    return write_clip(folder)


@pytest.fixture(scope="module")
def theirs(config):
    return open_clip_model(config)


def forbid_downloads(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("downloaded, though MODEL.WEIGHTS holds CLIP")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)


def build(config, weights):
    return build_clip(str(config), str(weights), "frozen", "single", (4, 4))


def refused(config, weights) -> str:
    with pytest.raises(UserError) as error:
        build(config, weights)
    assert "\n" not in str(error.value)
    assert "CLIP_WEIGHTS" in str(error.value)
    return str(error.value)


@torch.no_grad()
def assert_same(ours, theirs, tolerance=1e-5):
    """Text features and every weight count; the towers' tests compare the image features."""
    found = ours.text(TOKENS, ours.attention_weights().text)
    torch.testing.assert_close(found, theirs.encode_text(TOKENS), atol=tolerance, rtol=tolerance)
    block, own = theirs.visual.transformer.resblocks[1], ours.image.transformer.resblocks[1]
    parts = [own.attn.q_proj.weight, own.attn.k_proj.weight, own.attn.v_proj.weight]
    atol = {"atol": tolerance, "rtol": tolerance}
    torch.testing.assert_close(torch.cat(parts), block.attn.in_proj_weight, **atol)
    biases = [own.attn.q_proj.bias, own.attn.k_proj.bias, own.attn.v_proj.bias]
    torch.testing.assert_close(torch.cat(biases), block.attn.in_proj_bias, **atol)
    torch.testing.assert_close(ours.image.proj, theirs.visual.proj, **atol)


def test_open_clip_state_dict(folder, config, theirs):
    path = folder / "state.pt"
    torch.save(theirs.state_dict(), path)
    assert_same(build(config, path), theirs)


def test_open_clip_training_checkpoint(folder, config, theirs):
    path = folder / "epoch_1.pt"
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"epoch": 1, "name": "run", "state_dict": state}, path)
    assert_same(build(config, path), theirs)


def test_safetensors(folder, config, theirs):
    path = folder / "open_clip_model.safetensors"
    save_file({name: value.contiguous() for name, value in theirs.state_dict().items()}, path)
    assert_same(build(config, path), theirs)


class Holder(nn.Module):
    """Holds entries under dotted names."""

    def forward(self, x):
        return x


def archive(state, path):
    """A TorchScript archive in half precision with OpenAI's extra entries."""
    root = Holder()
    extra = {"input_resolution": 64, "context_length": CONTEXT, "vocab_size": 49408}
    entries = {name: value.half() for name, value in state.items()}
    entries |= {name: torch.tensor(value) for name, value in extra.items()}
    for name, value in entries.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, Holder())
            module = module._modules[parent]
        module.register_buffer(leaf, value)
    torch.jit.trace(root, torch.zeros(1)).save(str(path))


def test_openai_archive(folder, config, theirs):
    path = folder / "ViT.pt"
    archive(theirs.state_dict(), path)
    clip = build(config, path)
    assert all(parameter.dtype == torch.float32 for parameter in clip.parameters())
    assert_same(clip, theirs, tolerance=2e-3)


def test_random_is_open_clips_start(config):
    torch.manual_seed(3)
    clip = build(config, "random")
    torch.manual_seed(3)
    assert_same(clip, open_clip.CLIP(**json.loads(config.read_text())).eval())


def test_nothing_but_a_random_start_changes_with_the_seed(folder, config, theirs):
    torch.manual_seed(1)
    first = build(config, "random").image.proj
    torch.manual_seed(2)
    assert not torch.equal(first, build(config, "random").image.proj)


def test_a_relative_path_resolves_from_here(folder, config, theirs, monkeypatch):
    torch.save(theirs.state_dict(), folder / "here.pt")
    monkeypatch.chdir(folder)
    assert_same(build(config, "here.pt"), theirs)


def test_missing_file(config, tmp_path):
    assert "absent.pt" in refused(config, tmp_path / "absent.pt")


def test_a_folder_is_no_file(config, tmp_path):
    assert str(tmp_path) in refused(config, tmp_path)


def test_damaged_file_names_the_file(config, tmp_path):
    path = tmp_path / "half.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"half\.pt") as error:
        build(config, path)
    assert "\n" not in str(error.value)


def test_another_shape_names_the_entry(tmp_path, folder, theirs):
    wide = write_clip(tmp_path, "wide", text_cfg__width=256)
    path = folder / "narrow.pt"
    torch.save(theirs.state_dict(), path)
    message = refused(wide, path)
    assert "128" in message and "256" in message and "narrow.pt" in message


def test_other_contents_name_what_is_missing(config, tmp_path):
    path = tmp_path / "resnet.pt"
    torch.save({"conv1.weight": torch.zeros(2, 3), "fc.weight": torch.zeros(4, 2)}, path)
    message = refused(config, path)
    assert "resnet.pt" in message


def test_fewer_blocks_than_the_architecture(tmp_path, folder, theirs):
    path = folder / "shallow.pt"
    torch.save(theirs.state_dict(), path)
    assert "resblocks.3" in refused(write_clip(tmp_path, "deep", vision_cfg__layers=4), path)


def test_more_blocks_than_the_architecture(tmp_path, folder, theirs):
    """Loading a part of a CLIP would answer without an error, and wrongly."""
    deep = write_clip(tmp_path, "deep", text_cfg__layers=3)
    path = folder / "deep.pt"
    torch.save(open_clip_model(deep).state_dict(), path)
    assert "resblocks.2" in refused(write_clip(tmp_path), path)


TRANSFORMERS_TOWER = {
    "transformer.resblocks.": "encoder.layers.",
    "attn.out_proj.": "self_attn.out_proj.",
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
TRANSFORMERS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.": "text_model.final_layer_norm.",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.proj": "visual_projection.weight",
    "logit_scale": "logit_scale",
}


def as_transformers(state):
    """The entries of open_clip's model as transformers' CLIPModel names them."""
    out = {"text_model.embeddings.position_ids": torch.arange(CONTEXT)[None]}
    for name, tensor in state.items():
        tower = "vision_model." if name.startswith("visual.") else "text_model."
        inner = name.removeprefix("visual.")
        if "resblocks" in name:
            for ours, theirs in TRANSFORMERS_TOWER.items():
                inner = inner.replace(ours, theirs)
            stem, _, leaf = inner.partition("attn.in_proj_")
            if leaf:
                for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                    out[f"{tower}{stem}self_attn.{letter}_proj.{leaf}"] = part.clone()
            else:
                out[tower + inner] = tensor
            continue
        ours, theirs = next(
            (o, t)
            for o, t in TRANSFORMERS.items()
            if name == o or (o[-1] == "." and name[: len(o)] == o)
        )
        projection = theirs.endswith("projection.weight")
        out[name.replace(ours, theirs, 1)] = tensor.T.contiguous() if projection else tensor
    return out


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_transformers_clip(folder, config, theirs, file):
    path, state = folder / file, as_transformers(theirs.state_dict())
    save_file(state, path) if file.endswith("safetensors") else torch.save(state, path)
    clip, reference = build(config, path), folder / "reference.pt"
    torch.save(theirs.state_dict(), reference)
    expected = build(config, reference).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in clip.state_dict().items())


def test_a_part_of_transformers_clip_names_what_is_missing_or_extra(folder, config, theirs):
    path, state = folder / "part.safetensors", as_transformers(theirs.state_dict())
    save_file({n: t for n, t in state.items() if n != "visual_projection.weight"}, path)
    assert "it has no visual.proj" in refused(config, path)
    save_file(state | {"vision_model.head.probe": torch.zeros(1)}, path)
    assert "unexpected entry vision_model.head.probe" in refused(config, path)
    name = "vision_model.encoder.layers.0.self_attn.q_proj.weight"
    save_file(state | {name: torch.zeros(3, 3)}, path)
    assert f"{name} has shape (3, 3)" in refused(config, path)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["sem_seg_head.clip.text.ln_final.bias"], "a complete segmentation model, not"),
        (["sem_seg_head.predictor.clip_model.ln_final.bias"], "a complete CAT-Seg model, not"),
        (["text_model.final_layer_norm.bias"], "a transformers model, but not a CLIP with both"),
        (["backbone.stem.weight", "decode_head.conv.bias"], "another segmentation model's"),
        (["visual.attnpool.c_proj.bias"], "image tower is not a plain ViT"),
        (["blocks.0.attn.qkv.weight"], "is not a CLIP (it contains blocks.0.attn.qkv.weight)"),
    ],
)
def test_what_is_no_clip_is_called_what_it_is(tmp_path, config, entries, expected):
    path = tmp_path / "other.pt"
    torch.save({name: torch.zeros(2) for name in entries}, path)
    message = refused(config, path)
    assert expected in message and str(path) in message
    assert ("MODEL.WEIGHTS" in message) == ("is a complete" in message)


def test_a_segmentation_checkpoint_is_told_where_it_goes(tmp_path, config):
    path = tmp_path / "model_final.pth"
    torch.save({"model": tiny_model().state_dict()}, path)
    assert "set MODEL.WEIGHTS to it" in refused(config, path)


def test_values_that_are_not_finite_name_the_entry(tmp_path, config, theirs):
    state = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    state["visual.proj"][3, 4] = float("nan")
    torch.save(state, tmp_path / "clip.pt")
    assert "its entry visual.proj has NaN" in refused(config, tmp_path / "clip.pt")


def test_a_web_page_names_the_key_and_the_file(tmp_path, config):
    path = tmp_path / "clip.pt"
    path.write_bytes(b"<!doctype html><html></html>")
    message = refused(config, path)
    assert message.startswith(f"MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS: {path} is a web page")


@pytest.mark.parametrize("failure", [URLError("no route"), FileNotFoundError("no hub"), OSError()])
def test_openai_without_a_network_says_what_to_fetch(config, monkeypatch, failure):
    def fail(*args, **kwargs):
        raise failure

    published = open_clip.get_pretrained_cfg("ViT-B-16-quickgelu", "openai")
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: published)
    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    message = refused(config, "openai")
    assert re.search(r"download .*https://\S+", message)


def test_openais_weights_do_not_go_into_a_model_with_gelu(tmp_path, monkeypatch):
    """Their models have QuickGELU; the weights would load and answer wrongly."""
    forbid_downloads(monkeypatch)
    config = write_clip(tmp_path, "gelu", quick_gelu=False)
    assert "QuickGELU" in refused(config, "openai")


def test_openai_of_an_architecture_they_did_not_publish(config, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("nothing to download")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    assert "OpenAI" in refused(config, "openai")


def test_openai_takes_what_open_clip_fetched(config, folder, theirs, monkeypatch):
    path = folder / "fetched.pt"
    archive(theirs.state_dict(), path)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: {"url": tag})
    monkeypatch.setattr(open_clip, "download_pretrained", lambda cfg: str(path))
    assert_same(build(config, "openai"), theirs, tolerance=2e-3)


def test_a_tag_of_open_clip_is_downloaded(monkeypatch, tmp_path):
    asked = []

    def fetch(settings):
        asked.append(settings["hf_hub"])
        raise OSError

    monkeypatch.setattr(open_clip, "download_pretrained", fetch)
    with pytest.raises(UserError, match="cannot download the weights 'merged2b_s8b_b131k'"):
        build_clip("EVA02-B-16", "merged2b_s8b_b131k", "frozen", "single", (4, 4))
    assert asked == ["timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k/"]


@pytest.mark.parametrize(
    ("name", "tag", "expected"),
    [
        ("ViT-B-16", "metaclip_400m", "need QuickGELU.* set .*CLIP_PRETRAINED to .*-16-quickgelu"),
        ("ViT-B-32-quickgelu", "laion400m_e31", None),
        ("ViT-B-16", "laion2b_s34b_b88k", None),
    ],
)
def test_weights_of_another_activation_are_refused(name, tag, expected, monkeypatch):
    def fetch(settings):
        raise OSError

    monkeypatch.setattr(open_clip, "download_pretrained", fetch)
    with pytest.raises(UserError, match=expected or "cannot download the weights"):
        build_clip(name, tag, "frozen", "single", (4, 4))


def test_a_name_that_is_no_tag_lists_them():
    with pytest.raises(UserError, match="no file webly; give merged2b_s8b_b131k, 'random' or"):
        build_clip("EVA02-B-16", "webly", "frozen", "single", (4, 4))
