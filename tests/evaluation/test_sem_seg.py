from __future__ import annotations

import json
import re
from datetime import datetime, timezone

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation import SemSegEvaluator as Detectron2Evaluator
from detectron2.utils import comm
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score

from cat_seg.data import DatasetSpec, read_label
from cat_seg.errors import UserError
from cat_seg.evaluation import SemSegEvaluator, incompleteness, sem_seg, skipped_images
from cat_seg.evaluation.confusion_file import read_confusion
from cat_seg.evaluation.image_counts import read_image_counts
from cat_seg.evaluation.record import data_record

SIZE = (5, 7)


@pytest.fixture
def dataset(tmp_path):
    """Register a dataset of label files; gives a function that takes the labels and its classes."""
    registered = []

    def build(labels, classes, ignore_label=255, **metadata):
        records = []
        for index, label in enumerate(labels):
            path = tmp_path / f"{index}.tif"
            Image.fromarray(label).save(path)
            records.append({"file_name": f"{index}.jpg", "sem_seg_file_name": str(path)})
        name = f"evaluated_{len(registered)}"
        registered.append(name)
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(stuff_classes=classes, ignore_label=ignore_label, **metadata)
        return name

    yield build
    for name in registered:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def scores(predicted: np.ndarray, classes: int) -> torch.Tensor:
    """Probabilities (T, H, W) that are largest at the predicted class."""
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(predicted.astype(np.int64)), classes)
    return one_hot.permute(2, 0, 1) * 0.5 + 0.1


def evaluate(evaluator, predictions, classes, batch=1):
    evaluator.reset()
    for start in range(0, len(predictions), batch):
        indices = range(start, min(start + batch, len(predictions)))
        evaluator.process(
            [{"file_name": f"{i}.jpg"} for i in indices],
            [{"sem_seg": scores(predictions[i], classes)} for i in indices],
        )
    return evaluator.evaluate()["sem_seg"]


def independent_metrics(labels, predictions, ignore_label):
    """The metrics as scikit-learn computes them, for the classes that a label has."""
    label, predicted = (np.concatenate([a.ravel() for a in x]) for x in (labels, predictions))
    known = label != ignore_label
    label, predicted = label[known], predicted[known]
    present = np.unique(label)
    iou = jaccard_score(label, predicted, labels=present, average=None)
    accuracy = recall_score(label, predicted, labels=present, average=None)
    means = {
        "mIoU": iou.mean(),
        "fwIoU": jaccard_score(label, predicted, labels=present, average="weighted"),
        "mACC": accuracy.mean(),
        "pACC": accuracy_score(label, predicted),
    }
    each = {
        metric: dict(zip(present, values, strict=True))
        for metric, values in (("IoU", iou), ("ACC", accuracy))
    }
    return {name: 100 * value for name, value in means.items()}, each


def random_case(classes, ignore_label, dtype, absent=()):
    generator = np.random.default_rng(classes)
    present = [c for c in range(classes) if c not in absent]
    labels = [generator.choice(present, SIZE).astype(dtype) for _ in range(4)]
    predictions = [
        np.where(generator.random(SIZE) < 0.5, label, generator.integers(0, classes, SIZE))
        for label in labels
    ]
    for label in labels:
        label[generator.random(SIZE) < 0.2] = ignore_label
    return labels, predictions


@pytest.mark.parametrize(
    ("classes", "ignore_label", "dtype", "absent"),
    [
        (4, 255, np.uint8, (2,)),
        (300, 65535, np.uint16, ()),
        (847, 65535, np.uint16, (0, 17, 845, 846)),
    ],
)
def test_metrics_are_those_of_an_independent_implementation(
    dataset, classes, ignore_label, dtype, absent
):
    """Class 2 of the first case is predicted, but no label has it."""
    labels, predictions = random_case(classes, ignore_label, dtype, absent)
    name = dataset(labels, [f"c{i}" for i in range(classes)], ignore_label)
    results = evaluate(SemSegEvaluator(name), predictions, classes)
    means, each = independent_metrics(labels, predictions, ignore_label)
    for metric, value in means.items():
        assert results[metric] == pytest.approx(value), metric
    for metric, values in each.items():
        assert len(values) < classes
        for index in range(classes):
            value = 100 * values.get(index, np.nan)
            assert results[f"{metric}-c{index}"] == pytest.approx(value, nan_ok=True)


def test_the_confusion_matrix_is_an_independent_one(dataset):
    labels, predictions = random_case(6, 255, np.uint8, absent=(3,))
    evaluator = SemSegEvaluator(dataset(labels, list("abcdef")))
    evaluate(evaluator, predictions, 6, batch=3)
    label, predicted = (np.concatenate([a.ravel() for a in x]) for x in (labels, predictions))
    known = label != 255
    expected = confusion_matrix(predicted[known], label[known], labels=range(6))
    assert np.array_equal(evaluator.confusion[:, :6], expected)
    assert evaluator.confusion[:, 6].sum() == (~known).sum()


def test_it_agrees_with_detectron2_and_batches_do_not_matter(dataset):
    labels, predictions = random_case(4, 255, np.uint8)
    name = dataset(labels, list("abcd"))
    theirs = evaluate(Detectron2Evaluator(name, sem_seg_loading_fn=read_label), predictions, 4)
    for batch in (1, 3):
        ours = evaluate(SemSegEvaluator(name), predictions, 4, batch)
        assert ours == {key: theirs[key] for key in ours}
        assert set(theirs) - set(ours) == {
            f"{metric}-{name}" for metric in ("BoundaryIoU", "min(IoU, B-Iou)") for name in "abcd"
        }


def test_results_are_written_with_null_for_classes_without_a_label(dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    labels, predictions = random_case(4, 255, np.uint8, absent=(2,))
    name = dataset(labels, ["a", "b", "c, d", "e"])
    file = tmp_path / "out/results.json"
    record = {"backbone": "tiny", "weights": None}
    before = datetime.now(timezone.utc).replace(microsecond=0)
    evaluator = SemSegEvaluator(name, file, record=record)
    results = evaluate(evaluator, predictions, 4)
    files = {"results.json", "confusion.npz", "image_counts.npz"}
    assert {path.name for path in file.parent.iterdir()} == files
    assert np.array_equal(read_confusion(file).counts, evaluator.confusion)
    assert read_confusion(file).names == ["a", "b", "c, d", "e"]
    written = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert written["dataset"] == name
    assert written["sem_seg"]["mIoU"] == results["mIoU"]
    assert written["sem_seg"]["IoU-c, d"] is None
    assert written["sem_seg"].keys() == results.keys() | {"mIoU_present_or_predicted"}
    # Class 2 is predicted only: it counts as 0 in the mean over all four classes.
    assert written["sem_seg"]["mIoU_present_or_predicted"] == pytest.approx(
        results["mIoU"] * 3 / 4, rel=1e-12
    )
    labeled = sum(int((label != 255).sum()) for label in labels)
    assert written["counts"] == {
        "images": 4,
        "skipped": 0,
        "expected": None,
        "labeled_pixels": labeled,
        "ignored_pixels": 4 * SIZE[0] * SIZE[1] - labeled,
        "classes": 4,
        "classes_present": 3,
    }
    assert {key: written[key] for key in record} == record
    images = [f"{index}.jpg" for index in range(4)]
    assert written["data"] == data_record(images, ["a", "b", "c, d", "e"])
    assert 0 <= written["seconds"] < 60
    assert before <= datetime.fromisoformat(written["finished"]) <= datetime.now(timezone.utc)
    assert caplog.messages == [f"Per-class metrics are in {file}"]


def test_the_counts_of_every_image_are_written(dataset, tmp_path):
    labels, predictions = random_case(6, 255, np.uint8, absent=(3,))
    predictions[1][:] = 2
    file = tmp_path / "results.json"
    background = [np.minimum(label, 4) for label in predictions]
    for label in labels:
        label[(label > 4) & (label < 255)] = 4
    name = dataset(labels, list("abcdef"), background_from=4)
    evaluate(SemSegEvaluator(name, file), predictions, 6, batch=3)
    counts = read_image_counts(file)
    assert counts.images == [f"{index}.jpg" for index in range(4)]
    assert counts.classes == [*"abcd", "background"]
    expected = []
    for row, (label, predicted) in enumerate(zip(labels, background, strict=True)):
        known = label != 255
        for index in range(5):
            labeled, answered = (label == index) & known, (predicted == index) & known
            if labeled.any() or answered.any():
                numbers = ((labeled & answered).sum(), labeled.sum(), answered.sum())
                expected.append((row, index, *numbers))
    assert expected == list(zip(*counts[2:], strict=True))


def test_predictions_are_written_on_request_in_the_format_of_detectron2(dataset, tmp_path):
    labels, predictions = random_case(4, 255, np.uint8)
    name = dataset(labels, list("abcd"))
    file = tmp_path / "ours/results.json"
    evaluate(SemSegEvaluator(name, file, save_predictions=True), predictions, 4, batch=3)
    theirs = Detectron2Evaluator(
        name, output_dir=str(tmp_path / "theirs"), sem_seg_loading_fn=read_label
    )
    evaluate(theirs, predictions, 4)
    ours, theirs = (
        json.loads((tmp_path / folder / "sem_seg_predictions.json").read_text())
        for folder in ("ours", "theirs")
    )
    assert ours == theirs
    decoded = np.zeros(SIZE, int)
    for entry in ours:
        if entry["file_name"] == "2.jpg":
            decoded[mask_util.decode(entry["segmentation"]) > 0] = entry["category_id"]
    assert np.array_equal(decoded, predictions[2])
    assert not list(file.parent.glob("*.partial"))


def test_written_predictions_have_one_background(dataset, tmp_path):
    name = dataset([np.zeros((1, 3), np.uint8)], list("abcd"), background_from=2)
    file = tmp_path / "results.json"
    evaluate(SemSegEvaluator(name, file, save_predictions=True), [np.array([[0, 2, 3]])], 4)
    written = json.loads((tmp_path / "sem_seg_predictions.json").read_text())
    assert {
        entry["category_id"]: mask_util.decode(entry["segmentation"]).tolist() for entry in written
    } == {0: [[1, 0, 0]], 2: [[0, 1, 1]]}


def test_nobody_encodes_predictions_that_are_not_kept(dataset, tmp_path, monkeypatch):
    labels, predictions = random_case(4, 255, np.uint8)
    name = dataset(labels, list("abcd"))
    monkeypatch.setattr(sem_seg, "encode_prediction", pytest.fail)
    evaluate(SemSegEvaluator(name, tmp_path / "results.json"), predictions, 4)


def test_from_the_background_index_on_all_is_background(dataset):
    """As in PAS-20b: more names to ask for than classes in the labels."""
    label = np.array([[0, 1, 2, 2, 255]], dtype=np.uint8)
    predicted = np.array([[0, 2, 3, 4, 4]])
    name = dataset([label], ["cat", "dog", "wall", "sky", "floor"], background_from=2)
    results = evaluate(SemSegEvaluator(name), [predicted], 5)
    assert {key: value for key, value in results.items() if key.startswith("IoU")} == {
        "IoU-cat": 100,
        "IoU-dog": 0,
        "IoU-background": pytest.approx(100 * 2 / 3),
    }
    assert results["pACC"] == 75


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        (np.full(SIZE, 4, np.uint8), "has the value 4"),
        (np.zeros((SIZE[1], SIZE[0]), np.uint8), "label .* is 5x7 pixels, but its image .* is 7x5"),
    ],
)
def test_a_label_that_does_not_fit_is_named_and_costs_itself_alone(
    dataset, label, problem, tmp_path, caplog
):
    good = np.zeros(SIZE, np.uint8)
    name = dataset([label, good], list("abcd"))
    evaluator = SemSegEvaluator(name, tmp_path / "out/results.json")
    assert evaluate(evaluator, [good, good], 4)["pACC"] == 100
    [skipped] = evaluator.skipped
    assert re.search(problem, skipped) and "0.tif" in skipped
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"Skipped in {name}: {skipped}",
        f"The metrics of {name} cover only 1 of 2 images, 1 skipped",
    ]
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert written["skipped"] == [skipped]
    assert (written["counts"]["images"], written["counts"]["skipped"]) == (1, 1)


def test_of_many_skipped_images_the_first_are_named(dataset, tmp_path, caplog):
    name = dataset([np.full(SIZE, 9, np.uint8)] * 8, list("ab"))
    evaluator = SemSegEvaluator(name, tmp_path / "out/results.json")
    results = evaluate(evaluator, [np.zeros(SIZE, int)] * 8, 2)
    assert np.isnan(results["mIoU"])
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert written["skipped"] == evaluator.skipped[:5] and written["counts"]["skipped"] == 8
    assert sum(message.startswith("Skipped") for message in caplog.messages) == 5
    told = skipped_images({name: evaluator})
    assert told.startswith(f"{name}: 8 images skipped: label ") and told.endswith("; and 3 more")
    assert skipped_images({name: SemSegEvaluator(name)}) is None


@pytest.mark.parametrize(
    ("expected", "drops", "written"), [(100, False, 100), (2, True, 2), (None, False, None)]
)
def test_results_say_how_many_images_there_should_be(dataset, tmp_path, expected, drops, written):
    spec = DatasetSpec("few", "none", (), expected=expected, drops_unlabeled=drops)
    name = dataset([np.zeros(SIZE, np.uint8)] * 2, list("ab"), spec=spec)
    file = tmp_path / "out/results.json"
    evaluate(SemSegEvaluator(name, file), [np.zeros(SIZE, int)] * 2, 2)
    content = json.loads(file.read_text())
    assert content["counts"]["expected"] == written
    assert incompleteness(content) == (f"2 of {written} images" if written == 100 else None)


def test_results_that_cannot_be_written_are_one_line(dataset, tmp_path):
    name = dataset([np.zeros(SIZE, np.uint8)], list("ab"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/results\.json: "):
        evaluate(SemSegEvaluator(name, tmp_path / "file/results.json"), [np.zeros(SIZE, int)], 2)


def test_ranks_are_summed_and_only_the_first_reports(dataset, monkeypatch, tmp_path):
    labels, predictions = random_case(4, 255, np.uint8)
    name = dataset(labels, list("abcd"))
    whole = evaluate(SemSegEvaluator(name), predictions, 4)
    evaluators = [SemSegEvaluator(name, tmp_path / "out/results.json") for _ in range(2)]
    for rank, evaluator in enumerate(evaluators):
        evaluator.reset()
        for index in (rank, rank + 2):
            evaluator.process(
                [{"file_name": f"{index}.jpg"}], [{"sem_seg": scores(predictions[index], 4)}]
            )
    sent = []
    monkeypatch.setattr(comm, "gather", lambda part: sent.append(part) or [])
    assert evaluators[1].evaluate() is None
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(comm, "gather", lambda part: [part, *sent])
    assert evaluators[0].evaluate()["sem_seg"] == whole


def test_where_no_pixel_counts_there_are_no_figures_and_no_warnings(dataset, tmp_path, recwarn):
    """Every metric is NaN, which results.json writes as null."""
    name = dataset([np.full(SIZE, 255, np.uint8)], list("ab"))
    file = tmp_path / "results.json"
    results = evaluate(SemSegEvaluator(name, file), [np.zeros(SIZE, int)], 2)
    assert len(results) == 8 and all(np.isnan(value) for value in results.values())
    written = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert set(written["sem_seg"].values()) == {None}
    assert written["counts"]["labeled_pixels"] == written["counts"]["classes_present"] == 0
    assert not recwarn.list


def test_it_needs_nothing_of_detectron2s_own_evaluator(dataset, monkeypatch):
    """Release 0.6 of detectron2 has one with other arguments and another mIoU."""
    monkeypatch.delattr("detectron2.evaluation.SemSegEvaluator")
    monkeypatch.delattr("detectron2.evaluation.sem_seg_evaluation.SemSegEvaluator")
    assert SemSegEvaluator.__mro__[1:] == (DatasetEvaluator, object)
    name = dataset([np.zeros(SIZE, np.uint8)], list("ab"))
    assert evaluate(SemSegEvaluator(name), [np.zeros(SIZE, int)], 2)["mIoU"] == 100


def test_written_predictions_carry_the_ids_of_the_dataset(dataset, tmp_path):
    ids = {7: 0, 90: 1, 3: 2}
    name = dataset([np.zeros((1, 3), np.uint8)], list("abc"), stuff_dataset_id_to_contiguous_id=ids)
    evaluator = SemSegEvaluator(name, tmp_path / "ours/results.json", save_predictions=True)
    theirs = Detectron2Evaluator(
        name, output_dir=str(tmp_path / "theirs"), sem_seg_loading_fn=read_label
    )
    for one in (evaluator, theirs):
        evaluate(one, [np.array([[2, 0, 1]])], 3)
    ours, published = (
        json.loads((tmp_path / folder / "sem_seg_predictions.json").read_text())
        for folder in ("ours", "theirs")
    )
    assert ours == published
    assert [entry["category_id"] for entry in ours] == [7, 90, 3]
