"""The published protocol from the command line, on miniatures of all benchmarks."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score, recall_score

from cat_seg.cli import evaluate
from cat_seg.data import BENCHMARKS, read_image
from cat_seg.data.mapper import InferenceMapper
from cat_seg.data.registration import spec_of
from cat_seg.engine import benchmarks
from cat_seg.modeling.clip.text_tower import TextTower
from cat_seg.utils.paths import REPO_ROOT
from tests.tiny import answer, share_tokenizers, tiny_cfg, tiny_model
from tests.tools.miniature_benchmarks import MINIATURES, write

PROTOCOL = ("TEST.SLIDING_WINDOW", True, "MODEL.SEM_SEG_HEAD.POOLING_SIZES", (1, 1))
HEADINGS = ["Benchmark", "mIoU", "mACC", "pACC", "images", "seconds"]


def command(place: Path, *given: str, weights: str = "model.pth", output: str = "out") -> list[str]:
    return [
        str(REPO_ROOT / "tools/evaluate_benchmarks.py"),
        *("--config-file", str(place / "config.yaml"), *given),
        *("MODEL.WEIGHTS", str(place / weights), "OUTPUT_DIR", str(place / output)),
        *("DATALOADER.NUM_WORKERS", "0"),
    ]


class Messages(logging.Handler):
    """Collects what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


class Run:
    """What one run of the command in this process did, once it has ended."""

    def __init__(self, arguments: list[str], may_load: bool = True):
        # How many prompts the text tower encoded at a time.
        self.encoded: list[int] = []
        self.status = 0
        out, err, log = io.StringIO(), io.StringIO(), Messages()
        logging.getLogger("cat_seg").addHandler(log)
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(TextTower, "forward", self._counting(TextTower.forward))
            patch.setattr(sys, "argv", arguments)
            if not may_load:
                patch.setattr(benchmarks, "load_model", pytest.fail)
            try:
                evaluate.main()
            except SystemExit as stopped:
                self.status = stopped.code
        for name in ("cat_seg", "detectron2", "fvcore"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
        self.logged = log.lines
        self.error = [line for line in err.getvalue().splitlines() if line.startswith("error:")]
        self.rows, self.notes = parse(out.getvalue())

    def _counting(self, encode):
        def counted(*args):
            features = encode(*args)
            self.encoded.append(len(features))
            return features

        return counted


def parse(printed: str) -> tuple[dict[str, list[str]], list[str]]:
    """The rows of the table by their heading, and the lines after the table."""
    lines = printed[printed.index("| Benchmark") :].splitlines() if "| Benchmark" in printed else []
    rows = [[c.strip() for c in row.strip("|").split("|")] for row in lines if row.startswith("|")]
    return {row[0]: row[1:] for row in rows}, [row for row in lines if not row.startswith("|")]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with all benchmarks but PC-459, a config, and two sets of weights."""
    root = tmp_path_factory.mktemp("benchmarks")
    for label in MINIATURES:
        if label != "PC-459":
            write(root / "datasets", label)
    (root / "config.yaml").write_text(tiny_cfg(root, "INPUT.MIN_SIZE_TEST", 0).dump())
    model = tiny_model()
    torch.save({"model": model.state_dict()}, root / "model.pth")
    for parameter in model.sem_seg_head.parameters():
        parameter.data += 0.01
    torch.save({"model": model.state_dict()}, root / "other.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root / "datasets"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("OMP_NUM_THREADS", "1")
        share_tokenizers(patch)
        yield root


def results_file(place: Path, label: str, output: str = "out") -> Path:
    return place / output / "inference" / MINIATURES[label].dataset / "results.json"


def results(place: Path, label: str, output: str = "out") -> dict:
    return json.loads(results_file(place, label, output).read_text())


def redone(place: Path, *arguments: str, **options) -> tuple[Run, set[str]]:
    """Run the command; also gives the benchmarks whose results it wrote."""
    before = {label: _written(place, label) for label in MINIATURES}
    run = Run(command(place, *arguments), **options)
    return run, {label for label in MINIATURES if _written(place, label) != before[label]}


def _written(place: Path, label: str) -> int | None:
    file = results_file(place, label)
    return file.stat().st_mtime_ns if file.exists() else None


@pytest.fixture(scope="module")
def first(place) -> Run:
    """The first run; PC-459 is missing."""
    run, written = redone(place, "TEST.SAVE_PREDICTIONS", "True")
    assert written == MINIATURES.keys() - {"PC-459"}
    return run


@pytest.fixture(scope="module")
def second(place, first) -> tuple[Run, set[str]]:
    """The second run, with PC-459; also the benchmarks that it evaluated."""
    write(place / "datasets", "PC-459")
    return redone(place)


def true_labels(place: Path, label: str) -> list[np.ndarray]:
    one = MINIATURES[label]
    folder = place / "datasets" / one.labels
    return [np.asarray(Image.open(folder / f"{i}{one.suffix}")) for i in range(one.count)]


def saved_predictions(place: Path, label: str) -> list[np.ndarray]:
    maps = [np.full(size, -1) for size in MINIATURES[label].sizes]
    saved = results_file(place, label).with_name("sem_seg_predictions.json")
    # Of these benchmarks, A-847 alone has category ids of its own.
    table = json.loads((REPO_ROOT / "datasets/raw_ids/ade847.json").read_text())
    for entry in json.loads(saved.read_text()):
        mask = mask_util.decode(entry["segmentation"]) > 0
        category = entry["category_id"]
        index = table.index(category) if label == "A-847" else category
        maps[int(Path(entry["file_name"]).stem)][mask] = index
    return maps


def test_starting_warns_of_nothing():
    script = REPO_ROOT / "tools/evaluate_benchmarks.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert "--benchmarks NAME" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_benchmark_is_listed_with_what_to_do(first, place):
    assert first.status == 0 and not first.error
    assert first.rows["PC-459"] == ["missing", "-", "-", "-", "-"]
    *footnotes, note = first.notes
    assert all(line.startswith("* ") for line in footnotes)
    assert note.startswith("PC-459 missing: dataset context_459_test_sem_seg not found in")
    assert str(place / "datasets") in note
    assert "datasets/prepare_pascal_context_459.py" in note


@pytest.mark.parametrize("label", [label for label in MINIATURES if label != "PC-459"])
def test_metrics_are_those_of_the_saved_predictions(first, place, label):
    one, found = MINIATURES[label], results(place, label)
    truth = np.concatenate([a.ravel() for a in true_labels(place, label)])
    predicted = np.concatenate([a.ravel() for a in saved_predictions(place, label)])
    known = truth != one.ignored
    truth, predicted = truth[known], predicted[known]
    present = np.unique(truth)
    expected = {
        "mIoU": 100 * jaccard_score(truth, predicted, labels=present, average="macro"),
        "mACC": 100 * recall_score(truth, predicted, labels=present, average="macro"),
        "pACC": 100 * accuracy_score(truth, predicted),
    }
    assert {metric: found["sem_seg"][metric] for metric in expected} == pytest.approx(expected)
    # None of the miniatures is the whole dataset, and the table says so.
    whole = spec_of(one.dataset).expected
    shown = [f"{value:.2f}*" for value in expected.values()]
    assert f"* {label}: {one.count} of {whole} images" in first.notes
    assert first.rows[label][:4] == [*shown, str(one.count)]
    classes = one.classes or len(one.vocabulary)
    assert found["counts"] == {
        "images": one.count,
        "skipped": 0,
        "expected": whole,
        "labeled_pixels": len(truth),
        "ignored_pixels": int((~known).sum()),
        "classes": classes,
        "classes_present": len(present),
    }
    assert sum(name.startswith("IoU-") for name in found["sem_seg"]) == classes
    assert found["vocabulary"] == one.vocabulary


@pytest.mark.parametrize("label", ["PAS-20b", "PC-59"])
def test_predictions_are_by_the_published_protocol(first, place, label):
    """Sliding windows and no pooling, whatever the config file says, and the benchmark's names."""
    one = MINIATURES[label]
    model = tiny_model(*PROTOCOL)
    model.set_vocabulary(one.vocabulary)
    for index, saved in enumerate(saved_predictions(place, label)):
        pixels = read_image(str(place / "datasets" / one.images / f"{index}.jpg"), "RGB")
        [scores] = answer(model, {"image": torch.from_numpy(pixels.transpose(2, 0, 1).copy())})
        if one.classes:  # the rest is background
            last = one.classes - 1
            scores = torch.cat([scores[:last], scores[last:].amax(dim=0, keepdim=True)])
        best, chosen = scores.amax(dim=0), scores.gather(0, torch.from_numpy(saved)[None])[0]
        assert (best - chosen).max() < 1e-6
        assert (best - scores.mean(dim=0)).min() > 1e-4


def test_results_say_what_was_evaluated(first, place):
    found = results(place, "A-150")
    assert found["benchmark"] == "A-150"
    assert found["dataset"] == "ade20k_150_test_sem_seg"
    weights = place / "model.pth"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found["weights"] == {"file": str(weights), "sha256": digest}
    assert found["backbone"] == found["config"]["MODEL"]["SEM_SEG_HEAD"]["CLIP_PRETRAINED"]
    assert found["config"]["TEST"]["SLIDING_WINDOW"]
    assert found["seconds"] > 0


def test_every_vocabulary_is_encoded_once(first):
    sizes = [len(MINIATURES[b.label].vocabulary) for b in BENCHMARKS if b.label != "PC-459"]
    assert first.encoded == sizes


def test_what_was_missing_is_evaluated_and_the_rest_is_kept(first, second):
    run, written = second
    assert run.status == 0
    assert written == {"PC-459"}
    assert run.encoded == [459]
    assert list(run.rows)[2:] == [benchmark.label for benchmark in BENCHMARKS]
    assert run.rows["Benchmark"] == HEADINGS[1:]
    assert "missing" not in str(run.rows)
    assert [note.split(":")[0] for note in run.notes] == [f"* {b.label}" for b in BENCHMARKS]
    for label in MINIATURES.keys() - {"PC-459"}:
        assert run.rows[label] == first.rows[label]
    kept = [line for line in run.logged if "was already evaluated with these weights" in line]
    assert len(kept) == 5 and kept[0].startswith("ade20k_full_sem_seg_freq_val_all")


def test_the_third_run_does_not_even_load_the_model(second, place):
    run, written = redone(place, may_load=False)
    assert run.rows == second[0].rows
    assert not written


def test_a_lost_result_is_evaluated_again(second, place):
    before = results(place, "PAS-20")
    results_file(place, "PAS-20").unlink()
    run, written = redone(place)
    assert written == {"PAS-20"}
    assert run.encoded == [20]
    assert results(place, "PAS-20")["sem_seg"] == before["sem_seg"]


def test_other_weights_are_evaluated_again(second, place):
    before = results(place, "PAS-20")
    content = (place / "model.pth").read_bytes()
    (place / "model.pth").write_bytes((place / "other.pth").read_bytes())
    # The pairs of the command follow the names at once.
    run, written = redone(place, "--benchmarks", "voc_2012_test_sem_seg")
    (place / "model.pth").write_bytes(content)
    assert written == {"PAS-20"}
    assert list(run.rows)[2:] == ["PAS-20"]
    after = results(place, "PAS-20")
    assert after["weights"]["sha256"] != before["weights"]["sha256"]
    assert after["sem_seg"] != before["sem_seg"]


def test_a_broken_label_is_skipped_and_the_rest_is_evaluated(place):
    label = place / "datasets" / MINIATURES["PAS-20"].labels / "1.png"
    content = label.read_bytes()
    label.write_bytes(b"no image")
    run = Run(command(place, "--benchmarks", "PAS-20", "PAS-20b", output="broken"))
    label.write_bytes(content)
    assert run.status == 2
    [error] = run.error
    assert error.startswith(
        "error: PAS-20 incomplete: voc_2012_test_sem_seg: 1 image skipped: "
        f"cannot read label {label}"
    )
    assert run.rows["PAS-20"][3] == "1" and run.rows["PAS-20b"][3] == "2"
    assert "* PAS-20: 1 of 1449 images, 1 skipped" in run.notes
    counts = results(place, "PAS-20", "broken")["counts"]
    assert (counts["images"], counts["skipped"]) == (1, 1)
    # Once the file is repaired, the same command evaluates that benchmark again.
    run = Run(command(place, "--benchmarks", "PAS-20", "PAS-20b", output="broken"))
    assert run.status == 0 and run.encoded == [20]
    assert results(place, "PAS-20", "broken")["counts"]["images"] == 2


def test_a_failing_benchmark_does_not_stop_the_others(place, monkeypatch):
    run_on_dataset = benchmarks.run_on_dataset

    def failing(cfg, model, name, *rest):
        if name == "voc_2012_test_sem_seg":
            raise RuntimeError("out of\nmemory")
        return run_on_dataset(cfg, model, name, *rest)

    monkeypatch.setattr(benchmarks, "run_on_dataset", failing)
    blocked = place / "blocked/inference" / MINIATURES["PAS-20b"].dataset
    blocked.parent.mkdir(parents=True)
    blocked.touch()  # a file where the results' folder should be
    names = ("PAS-20", "PAS-20b", "PC-59")
    run = Run(command(place, "--benchmarks", *names, output="blocked"))
    assert run.status == 2
    [error] = run.error
    assert error.startswith("error: PAS-20 failed: RuntimeError: out of memory; PAS-20b failed: ")
    assert f"cannot write {blocked}/results.json: " in error
    assert [run.rows[name][0] for name in names[:2]] == ["failed", "failed"]
    assert run.rows["PC-59"][3] == "2"


@pytest.mark.parametrize(
    ("action", "word", "reason"),
    [
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            "failed",
            "a data worker was killed (signal 9)",
        ),
        (
            lambda: 1 / 0,
            "incomplete",
            "JPEGImages/1.jpg cannot be preprocessed: ZeroDivisionError: ",
        ),
    ],
)
def test_a_failing_data_worker_does_not_stop_other_benchmarks(
    place, tmp_path, monkeypatch, action, word, reason
):
    prepare = InferenceMapper.__call__

    def changed(mapper, record):
        if record["file_name"].endswith("VOC2012/JPEGImages/1.jpg"):
            action()
        return prepare(mapper, record)

    monkeypatch.setattr(InferenceMapper, "__call__", changed)
    arguments = command(place, "--benchmarks", "PAS-20", "PC-59", output=str(tmp_path))
    run = Run([*arguments, "DATALOADER.NUM_WORKERS", "2"])
    assert run.status == 2
    [error] = run.error
    assert error.startswith(f"error: PAS-20 {word}: ") and reason in error
    assert run.rows["PAS-20"][3] == ("1" if word == "incomplete" else "-")
    assert run.rows["PC-59"][3] == "2"


def test_a_dataset_with_files_missing_is_found_before_any_work(place):
    label = place / "datasets" / MINIATURES["A-150"].labels / "1.png"
    moved = label.rename(place / "1.png")
    run = Run(command(place, "--benchmarks", "A-150", output="incomplete"), may_load=False)
    moved.rename(label)
    assert run.status == 2
    assert run.rows["A-150"][0] == "failed"
    assert run.error[0].startswith("error: A-150 failed: image ")


def test_a_requested_benchmark_must_be_on_disk(place, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write(tmp_path, "PAS-20")
    run = Run(command(place, "--benchmarks", "PAS-20", "A-150", output="asked"))
    assert run.status == 2
    assert run.rows["PAS-20"][3] == "2"
    assert run.rows["A-150"][0] == "missing"
    [error] = run.error
    assert error.startswith("error: A-150 missing: dataset ade20k_150_test_sem_seg not found in")


@pytest.mark.parametrize("given", [(), ("--resume",)])
def test_no_weights_are_an_error(place, given):
    run = Run([*command(place, *given, output="none"), "MODEL.WEIGHTS", ""], may_load=False)
    assert run.status == 2
    [error] = run.error
    assert error.startswith("error: MODEL.WEIGHTS is empty")
    assert "add MODEL.WEIGHTS FILE to evaluate a checkpoint" in error
    assert not run.rows


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["A-151"], "--benchmarks: unknown dataset 'A-151'; choose from ade20k_150_test_sem_seg, "),
        ([], "no benchmark dataset found in "),
        (["PAS-20"], "dataset voc_2012_test_sem_seg not found in "),
    ],
)
def test_nothing_to_evaluate_is_an_error(place, monkeypatch, tmp_path, names, problem):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    run = Run(command(place, *(["--benchmarks", *names] if names else [])), may_load=False)
    assert run.status == 2
    assert run.error == [line for line in run.error if line.startswith(f"error: {problem}")]
    assert len(run.error) == 1
