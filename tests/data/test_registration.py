from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from cat_seg.data.registration import (
    find_pairs,
    is_on_disk,
    register,
    spec_of,
    unregister,
    why_incomplete,
)
from cat_seg.data.specs import DatasetSpec, Layout, datasets_root
from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT

FIRST, SECOND = Layout("new/images", "new/labels"), Layout("old/images", "old/labels")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


@pytest.fixture
def add():
    added = set()

    def add(*layouts: Layout, **settings) -> str:
        spec = DatasetSpec("sample", "datasets/voc20.json", layouts, **settings)
        register(spec)
        added.add(spec.name)
        return spec.name

    yield add
    for name in added:
        unregister(name)


def fill(root, layout: Layout, stems=("a", "b"), image_suffix=".jpg", label_suffix=".png"):
    for folder, suffix in ((layout.images, image_suffix), (layout.labels, label_suffix)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for stem in stems:
            (root / folder / f"{stem}{suffix}").touch()


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_hidden_files_are_passed_over(root, add):
    name = add(FIRST)
    fill(root, FIRST, stems=("._a", "._b"))
    assert not is_on_disk(name)
    fill(root, FIRST, stems=("a",))
    (root / FIRST.images / "._c.jpg").touch()
    assert [record["file_name"] for record in DatasetCatalog.get(name)] == [
        str(root / FIRST.images / "a.jpg")
    ]


def test_records_pair_by_stem_in_order(root, add):
    name = add(FIRST)
    fill(root, FIRST, stems=("b", "a.1", "a"))
    (root / FIRST.labels / "notes.txt").touch()
    (root / FIRST.images / "c.txt").touch()
    folders = (root / FIRST.images, root / FIRST.labels)
    assert DatasetCatalog.get(name) == [
        {
            "file_name": str(folders[0] / f"{stem}.jpg"),
            "sem_seg_file_name": str(folders[1] / f"{stem}.png"),
        }
        for stem in ("a", "a.1", "b")
    ]


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".png", ".tif", ".jpeg"])
def test_images_of_any_usual_suffix(root, add, suffix):
    name = add(FIRST, label_suffix=".tif")
    fill(root, FIRST, image_suffix=suffix, label_suffix=".tif")
    assert len(DatasetCatalog.get(name)) == 2


def test_the_first_layout_that_exists_wins(root, add):
    name = add(FIRST, SECOND)
    metadata = MetadataCatalog.get(name)
    fill(root, SECOND)
    assert metadata.image_root == str(root / SECOND.images)
    assert metadata.sem_seg_root == str(root / SECOND.labels)
    fill(root, FIRST)
    assert metadata.sem_seg_root == str(root / FIRST.labels)
    assert str(root / FIRST.images) in DatasetCatalog.get(name)[0]["file_name"]


def test_a_complete_layout_wins_over_one_that_was_begun(root, add):
    name = add(FIRST, SECOND)
    fill(root, FIRST, stems=("a",))
    fill(root, SECOND)
    assert MetadataCatalog.get(name).sem_seg_root == str(root / SECOND.labels)
    assert len(DatasetCatalog.get(name)) == 2


def test_a_layout_without_files_does_not_win(root, add):
    name = add(FIRST, SECOND)
    fill(root, FIRST, label_suffix=".tif")
    fill(root, SECOND)
    assert MetadataCatalog.get(name).sem_seg_root == str(root / SECOND.labels)


def test_metadata(add):
    metadata = MetadataCatalog.get(add(FIRST, ignore_label=65535))
    assert metadata.name == "sample"
    assert metadata.ignore_label == 65535
    assert metadata.evaluator_type == "sem_seg"
    assert metadata.stuff_classes[:2] == ["aeroplane", "bicycle"]
    assert metadata.get("thing_classes") is None


def test_the_root_is_read_when_it_is_needed(tmp_path, monkeypatch, add):
    name = add(FIRST)
    for folder in ("one", "two"):
        fill(tmp_path / folder, FIRST, stems=(folder,))
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / folder))
        assert folder in DatasetCatalog.get(name)[0]["file_name"]
        assert folder in MetadataCatalog.get(name).image_root


@pytest.mark.parametrize("value", [None, ""])
def test_the_default_root_is_in_the_repository(value, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    if value is None:
        monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    else:
        monkeypatch.setenv("DETECTRON2_DATASETS", value)
    assert datasets_root() == REPO_ROOT / "datasets"


def test_a_missing_dataset_names_folders_and_remedy(root, add):
    name = add(FIRST, SECOND, made_by="run it")
    assert not is_on_disk(name)
    with pytest.raises(UserError) as caught:
        DatasetCatalog.get(name)
    message = one_line(caught)
    for part in (name, root, FIRST.images, FIRST.labels, SECOND.images, SECOND.labels, "run it"):
        assert str(part) in message
    fill(root, SECOND)
    assert is_on_disk(name)


def test_is_on_disk_refuses_names_that_nobody_registered(add):
    name = add(FIRST)
    with pytest.raises(
        UserError, match=f"unknown dataset 'no_such_set'; choose from .*{name}"
    ) as e:
        is_on_disk("no_such_set")
    one_line(e)
    assert "coco_2017_val_panoptic" not in str(e.value)  # detectron2's
    assert "no_such_set" not in MetadataCatalog


def test_a_label_without_image_is_named(root, add):
    name = add(FIRST)
    fill(root, FIRST)
    for stem in ("y", "x"):
        (root / FIRST.labels / f"{stem}.png").touch()
    with pytest.raises(UserError, match=r"label .*labels.x\.png has no image .*2 of 4 labels") as e:
        DatasetCatalog.get(name)
    one_line(e)


def test_an_image_without_label_is_named(root, add):
    name = add(FIRST)
    fill(root, FIRST)
    (root / FIRST.images / "x.jpg").touch()
    with pytest.raises(UserError, match=r"image .*images.x\.jpg has no label .*1 of 3 images") as e:
        DatasetCatalog.get(name)
    one_line(e)


def test_a_shared_image_folder_may_hold_more(root, add):
    layout = Layout(FIRST.images, FIRST.labels, shared_images=True)
    name = add(layout)
    fill(root, layout)
    (root / layout.images / "x.jpg").touch()
    assert len(DatasetCatalog.get(name)) == 2
    (root / layout.labels / "y.png").touch()
    with pytest.raises(UserError, match=r"label .*y\.png has no image"):
        DatasetCatalog.get(name)


def test_two_images_of_one_name_are_refused(root, add):
    name = add(FIRST)
    fill(root, FIRST)
    (root / FIRST.images / "a.png").touch()
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png differ only in the suffix"):
        DatasetCatalog.get(name)


def test_the_spec_of_a_dataset_until_it_is_taken_back(add):
    name = add(FIRST, expected=7)
    assert spec_of(name).expected == 7
    unregister(name)
    with pytest.raises(UserError, match=f"unknown dataset '{name}'"):
        spec_of(name)
    assert name not in DatasetCatalog
    add(FIRST)


def test_pairs_of_an_incomplete_dataset(root, add):
    spec = spec_of(add(FIRST))
    fill(root, FIRST, stems=("a", "b", "c", "d"))
    (root / FIRST.images / "a.jpg").unlink()
    for stem in ("b", "c"):
        (root / FIRST.labels / f"{stem}.png").unlink()
    records, (label, image) = find_pairs(spec)
    assert [record["file_name"] for record in records] == [str(root / FIRST.images / "d.jpg")]
    assert "a.png has no image" in label and "1 of 2 labels" in label
    assert "b.jpg has no label" in image and "2 of 3 images" in image


@pytest.mark.parametrize(
    ("images", "labels", "shared", "reason"),
    [
        ("ab", "ab", False, ": the download is incomplete; download and unpack it again"),
        ("abcd", "ab", False, "; run it; if that does not help, download the dataset again"),
        ("ab", "ab", True, "; run it; if that does not help, download the dataset again"),
        ("abcde", "abcde", False, "; remove the extra files"),
    ],
)
def test_why_a_dataset_is_incomplete(root, add, images, labels, shared, reason):
    layout = Layout(FIRST.images, FIRST.labels, shared_images=shared)
    spec = spec_of(add(layout, made_by="run it", expected=4))
    fill(root, layout, stems=images)
    for stem in set(images) - set(labels):
        (root / layout.labels / f"{stem}.png").unlink()
    count = len(labels)
    assert why_incomplete(spec, count) == f"{count} labeled images instead of 4{reason}"


@pytest.mark.parametrize(("index", "names"), [(None, 20), (15, 16)])
def test_names_of_the_label_values(add, index, names):
    found = spec_of(add(FIRST, background_from=index)).label_names()
    assert len(found) == names
    assert (found[-1] == "background") == (index is not None)
    assert found[:15] == spec_of("sample").classes()[:15]
