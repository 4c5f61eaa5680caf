"""train_ablation.sh from data to table, in miniature."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cat_seg.utils.paths import REPO_ROOT
from tests import tiny
from tests.warm_python import warm_python

VARIANTS = {
    "oft": "H-CLIP",
    "hpa_only": "H-CLIP + HPA",
    "afr_only": "H-CLIP + AFR",
    "enhanced": "HPS-Seg",
}
COLUMNS = ["A-847", "A-150", "PC-459", "PC-59", "PAS-20", "PAS-20b"]
# Training set and benchmarks: folder of images, folder of labels, numbers of classes and images.
COCO = "coco/coco_stuff"
VOC = "VOCdevkit/VOC2012"
DATA = (
    (f"{COCO}/images/train2017", f"{COCO}/annotations_detectron2/train2017_stuff", 171, 2),
    (f"{VOC}/JPEGImages", f"{VOC}/annotations_detectron2", 20, 1),
    (f"{VOC}/JPEGImages", f"{VOC}/annotations_detectron2_bg", 21, 1),
)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datasets root with COCO-Stuff to train on, PAS-20 and PAS-20b."""
    root = tmp_path_factory.mktemp("datasets")
    rng = np.random.default_rng(0)
    for images, labels, classes, count in DATA:
        for folder in (images, labels):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture = tiny.image(80, 96, seed=index).permute(1, 2, 0).numpy()
            Image.fromarray(picture).save(root / images / f"{index}.jpg")
            blocks = rng.integers(classes, size=(5, 6), dtype=np.uint8)
            label = Image.fromarray(blocks.repeat(16, 0).repeat(16, 1))
            label.save(root / labels / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    with warm_python() as program:
        yield program


def options(folder: Path) -> list[str]:
    """KEY VALUE pairs that shrink the shipped configs to the size of `tests.tiny`."""
    head = {
        "CLIP_PRETRAINED": tiny.write_clip(folder),
        "CLIP_WEIGHTS": "random",
        "FEATURE_RESOLUTION": [4, 4],
        "WINDOW_SIZES": 2,
        "HIDDEN_DIMS": 32,
        "PAD_LEN": 24,
        "DECODER_DIMS": [32, 16],
        "DECODER_GUIDANCE_DIMS": [24, 16],
        "DECODER_GUIDANCE_PROJ_DIMS": [8, 8],
    }
    rest = {
        "MODEL.DEVICE": "cpu",
        "SEED": 3,
        "INPUT.MIN_SIZE_TRAIN": (64,),
        "INPUT.CROP.SIZE": [64, 64],
        "INPUT.SIZE_DIVISIBILITY": 64,
        "DATASETS.TEST": (),
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 2,
        "SOLVER.CHECKPOINT_PERIOD": 1,
    }
    pairs = {f"MODEL.SEM_SEG_HEAD.{key}": value for key, value in head.items()} | rest
    return [str(part) for pair in pairs.items() for part in pair]


def run(
    python: Path, datasets: Path, script: str, root: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository, which leaves its output in `root`, from another folder."""
    return subprocess.run(
        [str(REPO_ROOT / script), "1", *arguments, "OUTPUT_DIR", str(root)],
        cwd=root.parent,
        env=os.environ | {"PYTHON": str(python), "DETECTRON2_DATASETS": str(datasets)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def results(folder: Path) -> list[Path]:
    return sorted(folder.glob("eval/inference/*/results.json"))


def times(paths: list[Path]) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in paths}


def test_the_ablation_ends_in_a_table_and_goes_on_where_it_was_broken_off(
    python: Path, datasets: Path, tmp_path: Path
) -> None:
    root, small = tmp_path / "ablation", options(tmp_path)
    first = run(python, datasets, "train_ablation.sh", root, *small)
    assert first.returncode == 0, first.stdout + first.stderr
    table = (root / "results.md").read_text()
    assert first.stdout.endswith(table)
    warnings = [line for line in first.stderr.splitlines() if line.startswith("warning:")]
    # Miniatures of the benchmarks have too few images for a full figure.
    assert warnings and all("of 1449 images" in line for line in warnings)
    heading, _, *rows = [line.strip("| ").split("|") for line in table.splitlines()[:6]]
    columns = [cell.strip() for cell in heading]
    assert columns == ["method", "backbone", *COLUMNS]
    for row, name in zip(rows, VARIANTS.values(), strict=True):
        method, backbone, *cells = (cell.strip() for cell in row)
        assert (method, backbone) == (name, "tiny")
        assert cells[:4] == ["-"] * 4
        difference = "" if name == "H-CLIP" else r" \([+-]\d+\.\d\)"
        assert all(re.fullmatch(rf"\d+\.\d\*{difference}", cell) for cell in cells[4:])
    with Image.open(root / "results.png") as chart:
        assert chart.format == "PNG"
        chart.load()

    finished = [root / name / "model_final.pth" for name in VARIANTS]
    finished += [file for name in VARIANTS for file in results(root / name)]
    assert len(finished) == 12
    # As if broken off after the first iteration of one variant, and in the evaluation of the next.
    weights = (root / "hpa_only" / "model_final.pth").read_bytes()
    (root / "hpa_only" / "model_final.pth").unlink()
    (root / "hpa_only" / "last_checkpoint").write_text("model_0000000.pth")
    shutil.rmtree(root / "hpa_only" / "eval")
    results(root / "afr_only")[0].unlink()
    before = times([path for path in finished if path.exists()])
    assert len(before) == 8

    second = run(python, datasets, "train_ablation.sh", root, *small)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("Starting training from iteration 1") == 1
    assert second.stdout.count("Starting training") == 1
    assert (root / "hpa_only" / "model_final.pth").read_bytes() == weights
    after = times(finished)
    assert {path: after[path] for path in before} == before
    assert (root / "results.md").read_text() == table


@pytest.mark.parametrize("script", ["train_ablation.sh", "run_train_test.sh"])
def test_without_any_data_there_is_one_line(python: Path, tmp_path: Path, script: str) -> None:
    done = run(python, tmp_path, script, tmp_path / "out", "MODEL.DEVICE", "cpu")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert re.match(f"error: no benchmark .* {tmp_path}.* datasets/README.md", line)
    assert not (tmp_path / "out").exists()


def test_without_the_training_set_there_is_one_line(
    python: Path, datasets: Path, tmp_path: Path
) -> None:
    (tmp_path / "VOCdevkit").symlink_to(datasets / "VOCdevkit")
    done = run(python, tmp_path, "run_train_test.sh", tmp_path / "out", "MODEL.DEVICE", "cpu")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert re.match("error: .*coco_2017_.*_stuff_all_sem_seg", last)
    assert "Traceback" not in done.stderr
