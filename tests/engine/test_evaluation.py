from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cat_seg.engine import Trainer, evaluate, load_model
from cat_seg.errors import UserError
from cat_seg.evaluation import sem_seg


@pytest.fixture
def trained(cfg) -> Path:
    """The folder of a short training run that was not evaluated."""
    cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD = 3, 0
    tested, cfg.DATASETS.TEST = cfg.DATASETS.TEST, ()
    Trainer(cfg).train()
    cfg.DATASETS.TEST = tested
    return Path(cfg.OUTPUT_DIR)


def results(folder: Path, dataset: str = "stand_in") -> dict:
    return json.loads((folder / "inference" / dataset / "results.json").read_text())


def test_evaluation_without_a_dataset_is_refused(cfg):
    cfg.DATASETS.TEST = ()
    with pytest.raises(UserError, match=r"DATASETS\.TEST is empty"):
        evaluate(cfg)


def test_evaluation_needs_no_training_data(cfg, trained):
    cfg.DATASETS.TRAIN = ("coco_2017_train_stuff_all_sem_seg",)
    assert "mIoU" in evaluate(cfg, resume=True)["sem_seg"]


def test_the_weights_are_loaded_and_named_in_the_results(cfg, trained, tmp_path):
    final = trained / "model_final.pth"
    expected = Trainer.test(cfg, load_model(cfg, str(final)))["sem_seg"]
    assert expected != Trainer.test(cfg, Trainer.build_model(cfg))["sem_seg"]
    assert results(trained)["weights"] is None  # who calls Trainer.test has them in memory
    cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = str(tmp_path / "again"), str(final)
    assert evaluate(cfg)["sem_seg"] == expected
    named = {"file": str(final), "sha256": hashlib.sha256(final.read_bytes()).hexdigest()}
    assert results(tmp_path / "again")["weights"] == named
    cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = str(trained), ""
    assert evaluate(cfg, resume=True)["sem_seg"] == expected
    assert results(trained)["weights"] == named


def test_several_datasets_have_a_file_each(cfg, trained):
    cfg.DATASETS.TEST = ("stand_in", "stand_in_again")
    found = evaluate(cfg, resume=True)
    assert list(found) == ["stand_in", "stand_in_again"]
    for name in found:
        assert results(trained, name)["sem_seg"]["mIoU"] == found[name]["sem_seg"]["mIoU"]
        assert results(trained, name)["counts"]["images"] == 6


def test_augmentation_and_predictions_are_by_the_config(cfg, trained, monkeypatch):
    sizes = []
    model = load_model(cfg, str(trained / "model_final.pth"))
    scores = model.scores
    monkeypatch.setattr(
        model, "scores", lambda item: sizes.append(item["image"].shape[1:]) or scores(item)
    )
    # The stand-in answers at the size of its input: 8 pixels.
    cfg.TEST.AUG.ENABLED, cfg.TEST.AUG.MIN_SIZES = True, (8,)
    cfg.TEST.SAVE_PREDICTIONS = True
    Trainer.test(cfg, model)
    assert sizes == [(8, 8)] * 12
    folder = trained / "inference/stand_in"
    saved = json.loads((folder / "sem_seg_predictions.json").read_text())
    assert len({entry["file_name"] for entry in saved}) == 6


@pytest.mark.parametrize("resume", [False, True])
def test_an_untrained_model_is_evaluated_on_request_alone(cfg, resume):
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS is empty.*TEST\.ALLOW_UNTRAINED") as error:
        evaluate(cfg, resume)
    assert (f"{cfg.OUTPUT_DIR} has no checkpoint" in str(error.value)) is resume
    assert not Path(cfg.OUTPUT_DIR, "inference").exists()
    cfg.TEST.ALLOW_UNTRAINED = True
    assert evaluate(cfg, resume)["sem_seg"]
    assert results(Path(cfg.OUTPUT_DIR))["weights"] == {"untrained": True}


def test_skipped_images_are_an_error_after_all_datasets(cfg, trained, config_file):
    label = config_file.parent / "stand_in/labels/2.png"
    content = label.read_bytes()
    label.write_bytes(b"no image")
    cfg.DATASETS.TEST = ("stand_in", "stand_in_again")
    try:
        with pytest.raises(UserError) as error:
            evaluate(cfg, resume=True)
    finally:
        label.write_bytes(content)
    assert str(error.value).startswith(f"stand_in: 1 image skipped: cannot read label {label}")
    assert str(error.value).endswith("; the metrics cover only the other images")
    for name in cfg.DATASETS.TEST:
        counts = results(trained, name)["counts"]
        assert (counts["images"], counts["skipped"]) == (5, 1)


def test_a_bad_file_does_not_end_the_training(cfg, config_file, log, monkeypatch):
    label = config_file.parent / "stand_in/labels/2.png"
    read = sem_seg.read_label

    def reading(path, *rest, **options):
        if path == str(label):
            raise UserError(f"cannot read label {path}")
        return read(path, *rest, **options)

    monkeypatch.setattr(sem_seg, "read_label", reading)  # training reads it all the same
    cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD = 3, 2
    Trainer(cfg).train()
    assert Path(cfg.OUTPUT_DIR, "model_final.pth").exists()
    assert results(Path(cfg.OUTPUT_DIR))["counts"]["skipped"] == 1
    told = f"Skipped in stand_in: cannot read label {label}"
    assert [record.message for record in log.records].count(told) == 2
