from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog

from cat_seg.data.records import check_test_dataset, load_records
from cat_seg.errors import UserError


@pytest.fixture
def registered():
    """Register a dataset by the function that loads it."""
    yield lambda load: DatasetCatalog.register("made_up", load)
    DatasetCatalog.remove("made_up")


@pytest.mark.parametrize(
    "name",
    ["ade20k_sem_seg_val", "coco_2017_val_panoptic_stuffonly", "cityscapes_fine_sem_seg_val"],
)
def test_a_dataset_of_detectron2_without_its_files_is_one_line(name):
    check_test_dataset(name)
    with pytest.raises(UserError, match=f"detectron2's dataset {name} cannot be loaded") as caught:
        load_records([name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["voc_2012_val", "coco_2017_val", "cityscapes_fine_panoptic_val"])
def test_a_dataset_of_another_task_is_refused(name):
    with pytest.raises(UserError, match=rf"{name}\b.*"):
        check_test_dataset(name)
        load_records([name])


def test_entries_without_label_maps_are_refused(registered):
    registered(lambda: [{"file_name": "a.jpg"}])
    with pytest.raises(UserError, match="made_up has no label maps for semantic segmentation"):
        load_records(["made_up"])


def test_whatever_loading_raises_is_one_line(registered):
    def load():
        raise KeyError("first\nsecond")

    registered(load)
    with pytest.raises(UserError, match=r"made_up .*cannot be loaded from .*first") as caught:
        load_records(["made_up"])
    assert "\n" not in str(caught.value)
