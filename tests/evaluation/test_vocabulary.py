from __future__ import annotations

import json

import pytest
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from torch import nn

from cat_seg.config import add_cat_seg_config
from cat_seg.errors import UserError
from cat_seg.evaluation import using_vocabulary, vocabulary_of


class Model(nn.Module):
    """Has one vocabulary in training and another in evaluation, as CATSeg has."""

    def __init__(self):
        super().__init__()
        self.names = ("a", "b")

    @property
    def vocabulary(self):
        return ("trained",) if self.training else self.names

    def set_vocabulary(self, names):
        self.names = tuple(names)


@pytest.fixture
def cfg():
    MetadataCatalog.get("asked").set(stuff_classes=["cat", "dog"])
    yield add_cat_seg_config(get_cfg())
    MetadataCatalog.remove("asked")


def test_a_dataset_has_its_own_classes(cfg):
    assert vocabulary_of(cfg, "asked") == ["cat", "dog"]


def test_given_classes_have_to_be_as_many_in_their_order(cfg, tmp_path):
    path = tmp_path / "names.json"
    cfg.MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON = str(path)
    path.write_text(json.dumps(["kitten", "puppy"]))
    assert vocabulary_of(cfg, "asked") == ["kitten", "puppy"]
    path.write_text(json.dumps(["kitten"]))
    with pytest.raises(UserError, match=r"names\.json\) lists 1 classes, but dataset asked has 2"):
        vocabulary_of(cfg, "asked")
    path.write_text(json.dumps(["dog", "cat"]))
    with pytest.raises(UserError, match=r"in a different order: class 0 is 'dog' instead of 'cat'"):
        vocabulary_of(cfg, "asked")


@pytest.mark.parametrize("training", [True, False])
def test_the_vocabulary_is_put_back_whatever_happens(training):
    model = Model().train(training)
    with using_vocabulary(model, ["x"]):
        assert model.vocabulary == ("x",)
    assert model.training == training
    with pytest.raises(ZeroDivisionError), using_vocabulary(model, ["x"]):
        raise ZeroDivisionError
    assert model.names == ("a", "b")
