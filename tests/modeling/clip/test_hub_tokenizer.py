"""SigLIP's tokenizer: end token, padding, truncation, cleaning, and where its files come from."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cat_seg.errors import UserError
from cat_seg.hub import download
from cat_seg.modeling.clip import hub_tokenizer
from cat_seg.modeling.clip.hub_tokenizer import SETTINGS, TOKENIZER, HubTokenizer

WORDS = (
    "</s>",
    "<pad>",
    "<unk>",
    "a",
    "photo",
    "of",
    "cat",
    "green",
    "grass",
    "in",
    "the",
    "scene",
)


def write_tokenizer(folder, padding="</s>", words=WORDS):
    """Write a tokenizer of whole words, with an end token as T5's and Gemma's have."""
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    end = vocabulary["</s>"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", end)]
    )
    tokenizer.save(str(folder / TOKENIZER))
    settings = {"eos_token": {"content": "</s>"}, "pad_token": padding}
    (folder / SETTINGS).write_text(json.dumps(settings))
    return tokenizer


def build(folder, length=8):
    return HubTokenizer(str(folder), "owner/none", length, "canonicalize")


@pytest.mark.parametrize("padding", ["</s>", "<pad>"])
def test_ids_are_those_of_the_whole_tokenizer(tmp_path, padding):
    """transformers truncates to the context with its end token, and pads."""
    theirs = write_tokenizer(tmp_path, padding)
    theirs.enable_truncation(8)
    theirs.enable_padding(length=8, pad_id=WORDS.index(padding), pad_token=padding)
    texts = ["a photo of a cat", "green grass", "a a a a a a a a a a cat"]
    expected = torch.tensor([encoding.ids for encoding in theirs.encode_batch(texts)])
    assert torch.equal(build(tmp_path)(texts), expected)


def test_case_punctuation_and_special_tokens_are_cleaned_away(tmp_path):
    write_tokenizer(tmp_path)
    tokenizer = build(tmp_path)
    assert tokenizer.encode("A  Photo, of: a CAT!") == tokenizer.encode("a photo of a cat")
    assert WORDS.index("</s>") not in tokenizer.encode("cat </s> cat")


def test_files_come_from_the_hub_unless_there_is_a_folder(tmp_path, monkeypatch):
    write_tokenizer(tmp_path)
    asked = []

    def fetch(repo, name):
        asked.append((str(repo), name))
        return tmp_path / name

    monkeypatch.setattr(hub_tokenizer, "fetch", fetch)
    HubTokenizer(None, "timm/some", 8, "canonicalize")
    assert asked == [("timm/some", TOKENIZER), ("timm/some", SETTINGS)]
    build(tmp_path)
    assert len(asked) == 2


def test_without_a_network_the_files_and_the_key_are_named(monkeypatch):
    def fetch(repo, name):
        raise UserError("cannot download")

    monkeypatch.setattr(hub_tokenizer, "fetch", fetch)
    with pytest.raises(
        UserError, match=r"CLIP_TOKENIZER: cannot download; .* of timm/some"
    ) as error:
        HubTokenizer(None, "timm/some", 8, "canonicalize")
    assert TOKENIZER in str(error.value) and SETTINGS in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (TOKENIZER, None, "no file"),
        (SETTINGS, None, "no file"),
        (TOKENIZER, "{", "no readable tokenizer"),
        (SETTINGS, "{", "no readable tokenizer"),
        (SETTINGS, "{}", "no readable tokenizer ('eos_token')"),
        (SETTINGS, '{"eos_token": "</s>", "pad_token": "<none>"}', "no pad_token <none>"),
    ],
)
def test_a_broken_folder_is_one_line(tmp_path, name, content, expected):
    write_tokenizer(tmp_path)
    file = tmp_path / name
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(UserError) as error:
        build(tmp_path)
    assert expected in str(error.value) and str(tmp_path) in str(error.value)
    assert str(error.value).startswith("MODEL.SEM_SEG_HEAD.CLIP_TOKENIZER")


def test_download_is_the_hubs():
    assert hub_tokenizer.fetch is download.fetch
