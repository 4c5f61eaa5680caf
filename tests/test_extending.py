"""The examples of docs/extending.md, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, build_model

from cat_seg.errors import UserError
from cat_seg.modeling.clip.adapters import FINE_TUNINGS
from cat_seg.modeling.clip.adapters.base import adapter_settings
from cat_seg.modeling.encoder import ENCODER_REGISTRY
from cat_seg.utils.paths import REPO_ROOT
from tests import tiny

PAGE = (REPO_ROOT / "docs/extending.md").read_text()


def blocks(section: str, language: str) -> list[str]:
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(section: str) -> SimpleNamespace:
    """Execute the section's Python, as if it were imported."""
    (source,) = blocks(section, "python")
    names: dict = {"__name__": "example"}
    exec(compile(source, section, "exec", dont_inherit=True), names)
    return SimpleNamespace(**names)


@pytest.fixture(scope="module")
def adapter():
    yield run("An adapter")
    del FINE_TUNINGS["low_rank"]


def low_rank_cfg(folder: Path, section: dict) -> CfgNode:
    cfg = tiny.tiny_cfg(folder, "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE", "low_rank")
    cfg.MODEL.ADAPTER = CfgNode(section, new_allowed=True)
    return cfg


def test_the_adapter_starts_as_clip_and_trains(tmp_path, adapter):
    (source,) = blocks("An adapter", "yaml")
    section = yaml.safe_load(source)["MODEL"]["ADAPTER"]
    torch.manual_seed(0)
    model = build_model(low_rank_cfg(tmp_path, section)).train()
    clip = model.sem_seg_head.encoder
    assert clip.adapter.settings.rank == 8
    frozen = clip.text.transformer.attention_weights()
    for one, other in zip(clip.attention_weights().text, frozen, strict=True):
        assert torch.equal(one.query, other.query)
    before = {name: p.detach().clone() for name, p in clip.named_parameters()}
    optimizer = torch.optim.SGD((p for p in clip.parameters() if p.requires_grad), lr=1.0)
    sum(model(tiny.batch()).values()).backward()
    optimizer.step()
    changed = {name for name, p in clip.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"adapter.text_up", "adapter.image_up"}  # the factors below start at 0
    again = build_model(low_rank_cfg(tmp_path, section))
    again.load_state_dict(model.state_dict())
    tiny.assert_same(
        tiny.answer(again, {"image": tiny.image(64, 64)}),
        tiny.answer(model, {"image": tiny.image(64, 64)}),
    )


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            {"RANKS": 8},
            r"MODEL.ADAPTER.LOW_RANK.RANKS is not a config key; choose from RANK, SCALE",
        ),
        ({"RANK": "many"}, "MODEL.ADAPTER.LOW_RANK.RANK is 'many'; set it to a value such as 4"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, adapter, section, problem):
    with pytest.raises(UserError, match=problem):
        build_model(low_rank_cfg(tmp_path, {"LOW_RANK": section}))


def test_a_value_that_the_adapter_refuses_names_its_key(tmp_path, adapter):
    model = low_rank_cfg(tmp_path, {"LOW_RANK": {"RANK": 200}}).MODEL
    told = r"^MODEL\.ADAPTER\.LOW_RANK\.RANK: rank must be at most 128; it is 200$"
    with (
        pytest.raises(UserError, match=told),
        adapter_settings(adapter.LowRankSettings, model, "LOW_RANK") as settings,
    ):
        raise ValueError(f"rank must be at most 128; it is {settings.rank}")


def test_a_name_is_not_registered_twice(adapter):
    from cat_seg.modeling.clip.adapters import FineTuning, register_fine_tuning

    with pytest.raises(ValueError, match="low_rank"):
        register_fine_tuning("low_rank", FineTuning())


def test_the_loss(tmp_path):
    if "SmoothCATSeg" not in META_ARCH_REGISTRY:
        run("A loss")
    model = build_model(tiny.tiny_cfg(tmp_path, "MODEL.META_ARCHITECTURE", "SmoothCATSeg")).train()
    losses = model(tiny.batch())
    assert losses.keys() == {"loss_sem_seg", "loss_smooth"}
    assert losses["loss_smooth"] > 0


def test_the_encoder(tmp_path):
    if "toy" not in ENCODER_REGISTRY:
        run("An encoder")
    model = build_model(tiny.tiny_cfg(tmp_path, "MODEL.SEM_SEG_HEAD.ENCODER", "toy")).train()
    sum(model(tiny.batch()).values()).backward()
    assert all(p.grad is not None for p in model.sem_seg_head.encoder.parameters())
    (probabilities,) = tiny.answer(model, {"image": tiny.image(40, 90)})
    assert probabilities.shape == (len(tiny.CLASSES), 40, 90)


def test_an_unknown_encoder_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"MODEL\.SEM_SEG_HEAD\.ENCODER is 'x'; set it to .*clip"):
        build_model(tiny.tiny_cfg(tmp_path, "MODEL.SEM_SEG_HEAD.ENCODER", "x"))
