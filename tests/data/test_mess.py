"""The datasets of MESS: names, files, classes and domains."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from cat_seg.data import LABELS, datasets_named, is_on_disk, read_image, read_label
from cat_seg.data.catalog import BENCHMARKS, is_group, is_mess
from cat_seg.data.mess import DOMAINS, MESS_DATASETS
from cat_seg.data.registration import spec_of
from cat_seg.data.soundness import check_dataset
from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT
from tests.mess_miniatures import COUNT, HEIGHT, IGNORED, PLACES, WIDTH, write

# The number of images that `python -m mess.prepare_all_datasets --stats` expects, and the first
# and last class.
FACTS = {
    "bdd100k_sem_seg_val": (1000, "road", "bicycle"),
    "dark_zurich_sem_seg_val": (50, "unlabeled", "bicycle"),
    "mhp_v1_sem_seg_test": (980, "others", "torso skin"),
    "foodseg103_sem_seg_test": (2125, "background", "other ingredients"),
    "atlantis_sem_seg_test": (1295, "bicycle", "wetland"),
    "dram_sem_seg_test": (718, "bird", "background"),
    "isaid_sem_seg_val": (4055, "others", "pier"),
    "isprs_potsdam_sem_seg_test_irrg": (504, "road", "others"),
    "worldfloods_sem_seg_test_irrg": (160, "land", "cloud"),
    "floodnet_sem_seg_test": (5571, "background", "grass"),
    "uavid_sem_seg_val": (840, "others", "humans"),
    "kvasir_instrument_sem_seg_test": (118, "others", "tool"),
    "chase_db1_sem_seg_test": (20, "others", "blood vessels"),
    "cryonuseg_sem_seg_test": (30, "others", "nuclei in cells"),
    "paxray_sem_seg_test_lungs": (180, "others", "lung"),
    "paxray_sem_seg_test_bones": (180, "others", "bones"),
    "paxray_sem_seg_test_mediastinum": (180, "others", "mediastinum"),
    "paxray_sem_seg_test_diaphragm": (180, "others", "diaphragm"),
    "corrosion_cs_sem_seg_test": (44, "others", "steel with severe corrosion"),
    "deepcrack_sem_seg_test": (237, "concrete or asphalt", "crack"),
    "pst900_sem_seg_test": (288, "background", "human"),
    "zerowaste_sem_seg_test": (929, "background or trash", "soft plastic"),
    "suim_sem_seg_test": (110, "background (waterbody)", "sea-floor and rocks"),
    "cub_200_sem_seg_test": (5794, "background", "Common Yellowthroat"),
    "cwfid_sem_seg_test": (21, "ground", "weed"),
}
DOMAIN_SIZES = {
    "General": 6,
    "Earth Monitoring": 5,
    "Medical Sciences": 4,
    "Engineering": 4,
    "Agriculture and Biology": 3,
}
# Image folders of the downloads, which the scripts leave as they are.
DOWNLOADED = {
    *("bdd100k_sem_seg_val", "dark_zurich_sem_seg_val", "foodseg103_sem_seg_test"),
    *("corrosion_cs_sem_seg_test", "deepcrack_sem_seg_test", "pst900_sem_seg_test"),
    *("zerowaste_sem_seg_test", "suim_sem_seg_test", "cwfid_sem_seg_test"),
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def test_there_are_22_datasets_in_5_domains():
    assert {d: sum(m.domain == d for m in MESS_DATASETS) for d in DOMAINS} == DOMAIN_SIZES
    names = [spec.name for dataset in MESS_DATASETS for spec in dataset.parts.values()]
    assert names == list(PLACES) == list(FACTS) == datasets_named(["MESS"])
    labels = [dataset.label for dataset in MESS_DATASETS]
    assert len(set(labels)) == 22
    assert [dataset.label for dataset in MESS_DATASETS if len(dataset.parts) > 1] == ["PAXRay-4"]


@pytest.mark.parametrize("name", PLACES)
def test_every_dataset_is_registered_and_read_from_its_files(root, name):
    place, (expected, first, last) = PLACES[name], FACTS[name]
    assert not is_on_disk(name)
    truth = write(root, name)
    assert is_on_disk(name)
    records = DatasetCatalog.get(name)
    assert records == [
        {
            "file_name": str(root / place.images / f"00{index}{place.image}"),
            "sem_seg_file_name": str(root / place.labels / f"00{index}{place.label}"),
        }
        for index in range(COUNT)
    ]
    metadata = MetadataCatalog.get(name)
    assert metadata.ignore_label == IGNORED
    assert metadata.evaluator_type == "sem_seg"
    assert metadata.background_from is None  # MESS prompts with its background classes too
    classes = metadata.stuff_classes
    assert (len(classes), classes[0], classes[-1]) == (place.classes, first, last)
    assert spec_of(name).expected == expected
    for record, label in zip(records, truth, strict=True):
        assert read_image(record["file_name"], "RGB").shape == (HEIGHT, WIDTH, 3)
        np.testing.assert_array_equal(read_label(record["sem_seg_file_name"]), label)
    report = check_dataset(spec_of(name), jobs=1)
    assert report.seen == place.classes
    (problem,) = report.problems
    assert problem.startswith(f"{COUNT} labeled images instead of {expected}")


@pytest.mark.parametrize("name", PLACES)
def test_only_downloaded_folders_may_hold_images_without_label(root, name):
    place = PLACES[name]
    write(root, name)
    (root / place.images / f"999{place.image}").touch()
    if name in DOWNLOADED:
        assert len(DatasetCatalog.get(name)) == COUNT
    else:
        with pytest.raises(UserError, match=r"999\.\w+ has no label"):
            DatasetCatalog.get(name)


@pytest.mark.parametrize("name", PLACES)
def test_a_missing_dataset_says_which_script_of_mess_prepares_it(root, name):
    place = PLACES[name]
    with pytest.raises(UserError) as caught:
        DatasetCatalog.get(name)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"dataset {name} not found in {root} (looked for {place.images} with")
    assert f"{place.labels}/*{place.label})" in message
    script = name.split("_sem_seg")[0].replace("foodseg103", "foodseg")
    assert f"`python -m mess.prepare_datasets.prepare_{script}` of the package mess-ben" in message
    assert "docs/mess.md" in message


@pytest.mark.parametrize(
    ("name", "datasets"),
    [
        ("Dark Zurich", ["dark_zurich_sem_seg_val"]),
        ("dark-zurich", ["dark_zurich_sem_seg_val"]),
        ("isprs_potsdam", ["isprs_potsdam_sem_seg_test_irrg"]),
        ("SUIM", ["suim_sem_seg_test"]),
        ("suim_sem_seg_test", ["suim_sem_seg_test"]),
        ("PAXRay-Lungs", ["paxray_sem_seg_test_lungs"]),
        ("paxray-4", [name for name in PLACES if name.startswith("paxray")]),
        ("mess", list(PLACES)),
        ("a150", ["ade20k_150_test_sem_seg"]),
    ],
)
def test_short_names(name, datasets):
    assert datasets_named([name]) == datasets
    assert is_group(name) == (name == "mess")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"'SUIN'; choose from .*suim_sem_seg_test.*, or MESS$"):
        datasets_named(["MESS", "SUIN"])


def test_the_six_benchmarks_are_not_of_mess():
    assert not any(is_mess(benchmark.dataset) for benchmark in BENCHMARKS)
    assert all(map(is_mess, PLACES))
    assert len(set(LABELS.values())) == len(LABELS) == len(BENCHMARKS) + len(PLACES)


@pytest.mark.slow
def test_starting_reads_no_file_of_mess_and_imports_nothing_for_it():
    code = """
import sys
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
from cat_seg.cli import evaluate
from cat_seg.data import datasets_named
assert len(datasets_named(["MESS"])) == 25
print([path for path in opened if "datasets/mess/" in path.replace(chr(92), "/")])
reader = "cat_seg.evaluation.results.published"
print([name for name in ("mess", "pandas", "rasterio", "gdown", reader) if name in sys.modules])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO_ROOT, timeout=120)
    assert done.stdout == "[]\n[]\n", done.stderr


def test_the_document_names_every_dataset_its_files_and_its_script():
    document = (REPO_ROOT / "docs/mess.md").read_text()
    rows = [line.split("|")[1:-1] for line in document.splitlines() if line.startswith("| ")]
    cells = {row[0].strip(): " ".join(row[1:]) for row in rows}
    for dataset in MESS_DATASETS:
        row = cells[dataset.label]
        for spec in dataset.parts.values():
            (layout,) = spec.layouts
            for text in (spec.name, layout.images, layout.labels):
                assert text in row.replace("ORGAN", spec.name.rsplit("_", 1)[1])
            (script,) = re.findall(r"prepare_datasets\.(prepare_\w+)", spec.made_by)
            assert script in row
            assert str(spec.expected) in row and f" {len(spec.classes())} " in row
