"""Every supported name of open_clip: its features are open_clip's own, with random weights."""

from __future__ import annotations

import copy
import json
import re

import open_clip
import pytest

from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.utils.paths import REPO_ROOT
from tests.modeling.clip import encoder_table
from tests.modeling.clip.shallow import (
    LAYERS,
    TOKENS,
    built,
    largest_differences,
    shallow_config,
    shallow_timm,
)


def check(config, folder, layers):
    model, architecture = built(config, folder)
    assert architecture.image.layers == architecture.text.layers == layers
    image, text = largest_differences(model, architecture)
    assert image < 1e-5 and text < 1e-5


CHECKED: set[str] = set()  # shallow configs, of which names for several image sizes have the same


def without_names(config):
    """A shallow config without what makes no difference to the model."""
    text = re.sub(r"(_siglip|_clip)_\d+", r"\1", json.dumps(config, sort_keys=True))
    return re.sub(r'"(image_size|hf_tokenizer_name)": [^,]+, ', "", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", open_clip.list_models())
def test_features_are_open_clips(name, tmp_path):
    try:
        patch_size = Architecture.from_name(name).patch_size
    except ValueError:
        pytest.skip("refused, see docs/encoders.md")
    config = shallow_config(name)
    if (key := without_names(config)) not in CHECKED:
        with shallow_timm(patch_size):
            check(config, tmp_path, LAYERS)
        CHECKED.add(key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-16-quickgelu", "EVA02-B-16", "ViT-B-16-SigLIP2"])
def test_features_in_full_depth(name, tmp_path):
    config = copy.deepcopy(open_clip.get_model_config(name))
    if config["text_cfg"].get("hf_tokenizer_name"):
        config["text_cfg"]["vocab_size"] = TOKENS  # of 256000, for the time it takes
    check(config, tmp_path, 12)


@pytest.mark.slow
def test_the_tables_of_the_documentation():
    """`python -m tests.modeling.clip.encoder_table` prints them."""
    text = (REPO_ROOT / "docs" / "encoders.md").read_text()
    (version,) = re.findall(r"open_clip (\d+\.\d+\.\d+)", text)
    if version == open_clip.__version__:
        for table in (encoder_table.supported(), encoder_table.refused()):
            assert "\n".join(table) in text
    names = re.findall(r"^\| (\S+) \| (?:CLIP|EVA02-CLIP|SigLIP) \|", text, re.MULTILINE)
    assert len(names) > 50
    for name in set(names) & set(open_clip.list_models()):
        Architecture.from_name(name)
