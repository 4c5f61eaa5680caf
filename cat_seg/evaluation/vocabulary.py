"""The class names that a model is tested with on each dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import inference_context

from cat_seg.data import build_test_loader
from cat_seg.data.vocabularies import check_class_list
from cat_seg.modeling.segmentor import Segmentor


def vocabulary_of(cfg: CfgNode, dataset_name: str) -> list[str]:
    """Return the class names to test a dataset with, from TEST_CLASS_JSON or the dataset itself.

    Raises:
        UserError: TEST_CLASS_JSON does not list the dataset's classes in the same order.
    """
    own = MetadataCatalog.get(dataset_name).stuff_classes
    path = cfg.MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON
    if not path:
        return list(own)
    return check_class_list(
        "MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON",
        path,
        dataset_name,
        own,
        'set it to "" to use the class list of each dataset',
    )


def check_test_datasets(cfg: CfgNode) -> None:
    """Check up front that every dataset in DATASETS.TEST can be evaluated.

    Raises:
        UserError: a dataset is unknown, missing on disk, or does not match TEST_CLASS_JSON.
    """
    for name in cfg.DATASETS.TEST:
        build_test_loader(cfg, name)
        vocabulary_of(cfg, name)


@contextmanager
def using_vocabulary(model: Segmentor, names: Sequence[str]) -> Iterator[None]:
    """Put `model` in eval mode with the class names `names`, and restore both afterwards.

    Args:
        model: the model.
        names: the class names.
    """
    with inference_context(model):
        before = model.vocabulary
        model.set_vocabulary(names)
        try:
            yield
        finally:
            model.set_vocabulary(before)
