"""From the folder of a training to pictures, numbers and a page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cat_seg.cli.analyse import main
from cat_seg.cli.analysing.run import read_run
from cat_seg.engine import Trainer, load_config
from cat_seg.evaluation.confusion_file import confusion_file, read_confusion
from cat_seg.utils.metrics_file import read_metrics
from tests.tiny import CLASSES, image, labels, share_tokenizers, tiny_cfg

ALL = ("gradients", "prototypes", "rectification", "confusion", "text_distance", "radius")
TEST = "analyse_val"
TEST_CLASSES = ["sky", "cat", "red tree", "dog, puppy", "<b>grass</b>"]


def write_dataset(root: Path) -> None:
    """Write three images of 64x64 pixels with labels, and the class lists."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for index in range(3):
        picture = image(64, 64, index).permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(root / f"images/{index}.png")
        Image.fromarray(labels(64, 64, index).byte().numpy()).save(root / f"labels/{index}.png")
    (root / "test.json").write_text(json.dumps(TEST_CLASSES))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a tiny HPS-Seg that trained for two iterations, with all diagnostics."""
    root = tmp_path_factory.mktemp("analyse")
    data, out = root / "data", root / "out"
    write_dataset(data)
    cfg = tiny_cfg(
        root,
        *("MODEL.META_ARCHITECTURE", "EnhancedCATSeg", "MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4),
        *("MODEL.SEM_SEG_HEAD.CLIP_FINETUNE", "oft_both", "MODEL.HYPERBOLIC.RADIUS_PERIOD", 1),
        *(
            "DATASETS.TRAIN",
            ("analyse_train",),
            "DATASETS.TEST",
            (TEST,),
            "INPUT.CROP.ENABLED",
            False,
        ),
        *("DATALOADER.NUM_WORKERS", 0, "INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64),
        *("SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 2, "SOLVER.DIAGNOSTICS_PERIOD", 1),
        *("SEED", 1, "OUTPUT_DIR", str(out)),
    )
    for name, classes in (("analyse_train", root / "classes.json"), (TEST, data / "test.json")):
        cfg.DATASETS.CUSTOM[name] = type(cfg)(
            {"IMAGES": f"{data}/images", "LABELS": f"{data}/labels", "CLASSES": str(classes)}
        )
    out.mkdir()
    (out / "config.yaml").write_text(cfg.dump())
    with pytest.MonkeyPatch.context() as patch:
        share_tokenizers(patch)
        trainer = Trainer(load_config(str(out / "config.yaml")))
        trainer.resume_or_load(resume=False)
        trainer.train()
    return out


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    share_tokenizers(monkeypatch)


def copy_of(run: Path, place: Path, *without: str) -> Path:
    shutil.copytree(run, place, ignore=shutil.ignore_patterns(*without, "analysis"))
    return place


def analyse(*arguments) -> None:
    main([*map(str, arguments), "--device", "cpu"])


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stopped:
        analyse(*arguments)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line


def test_every_part_of_a_run(run, capsys):
    analyse(run, "--count", 2)
    folder = run / "analysis"
    content = json.loads((folder / "analysis.json").read_text())
    assert tuple(content["sections"]) == ALL and content["left_out"] == {}
    assert content["weights"] == str(run / "model_final.pth")
    pictures = {path.stem for path in folder.glob("*.png")}
    assert pictures == {
        *("gradient_norms", "gradient_cosines", "updates", "prototypes_training"),
        *("prototype_angles", "rectification", "rectification_training"),
        *(f"confusion_{TEST}", f"text_distance_{TEST}", "radius"),
    }
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert np.ptp(np.asarray(picture)) > 100 and min(picture.size) > 200
    page = (folder / "index.html").read_text()
    assert set(re.findall(r'src="(.*?)\.png"', page)) == pictures
    assert "&lt;b&gt;grass" in page and "<b>" not in page
    check_numbers(content["sections"], run)
    printed = capsys.readouterr().out
    assert "rank correlation of distance and IoU" in printed
    assert f"wrote {folder / 'index.html'}" in printed


def check_numbers(sections, run):
    metrics = read_metrics(run / "metrics.json")
    last = metrics[2]
    for name, value in sections["gradients"].items():
        assert value == {str(i): m[name] for i, m in metrics.items() if name in m}
    assert sections["rectification"]["training"]["afr/mix/mean"]["2"] == last["afr/mix/mean"]
    images = sections["rectification"]["images"]
    assert list(images) == ["0.png", "1.png"]
    assert np.array(images["0.png"]["spatial_gate"]).shape == (4, 4)

    model = torch.load(run / "model_final.pth", weights_only=True)["model"]
    prototypes = model["hpa.prototypes"][model["hpa.prototype_initialized"]].double()
    angles = np.array(sections["prototypes"]["final"]["angles"])
    cosine = (prototypes @ prototypes.T).clamp(-1, 1).numpy()
    apart = ~np.eye(len(angles), dtype=bool)
    assert np.allclose(np.cos(np.radians(angles))[apart], cosine[apart], atol=1e-5)
    assert sections["prototypes"]["final"]["classes"] == CLASSES
    assert last["hpa/angle/mean"] == pytest.approx(angles[apart].mean(), rel=1e-4)

    results = json.loads((run / f"inference/{TEST}/results.json").read_text())["sem_seg"]
    confusion = sections["confusion"][TEST]
    assert confusion["classes"] == TEST_CLASSES
    for index, name in enumerate(TEST_CLASSES):
        share = confusion["shares"][index][index]
        assert 100 * share == pytest.approx(results[f"ACC-{name}"], abs=1e-2)

    distance = sections["text_distance"]
    assert "without its adapter" in distance["text_features"]
    found = {one["name"]: one for one in distance[TEST]["classes"]}
    assert {name for name, one in found.items() if one["seen"]} == {"sky", "cat", "dog, puppy"}
    assert all(one["iou"] == results[f"IoU-{name}"] for name, one in found.items())

    radii = sections["radius"]["checkpoints"]
    assert list(radii) == ["before", "fine-tuned"]
    mean = radii["fine-tuned"]["text/classes"]["mean"]
    assert mean == pytest.approx(last["radius/text/classes/mean"], rel=1e-5)


def test_images_and_output_of_choice(run, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    Image.fromarray(image(30, 50).permute(1, 2, 0).numpy()).save(photo)
    arguments = ("--only", "rectification", "--output", tmp_path / "new/out")
    analyse(run, *arguments, "--images", photo)
    written = sorted(path.name for path in (tmp_path / "new/out").iterdir())
    assert written == [
        *("analysis.json", "index.html", "rectification.png", "rectification_training.png")
    ]
    content = json.loads((tmp_path / "new/out/analysis.json").read_text())
    assert list(content["sections"]["rectification"]["images"]) == ["photo.png"]
    assert "nowhere.jpg" in refused(capsys, run, *arguments, "--images", "nowhere.jpg")


def test_what_a_run_does_not_have_is_left_out(run, tmp_path, capsys):
    place = copy_of(run, tmp_path / "bare", "metrics.json", "inference")
    analyse(place)
    content = json.loads((place / "analysis/analysis.json").read_text())
    assert list(content["left_out"]) == ["gradients", "confusion", "text_distance"]
    assert "SOLVER.DIAGNOSTICS_PERIOD" in content["left_out"]["gradients"]
    assert "evaluate it" in content["left_out"]["confusion"]
    page = (place / "analysis/index.html").read_text()
    assert page.count("Left out: ") == 3 and "no curves over training" in page
    assert "gradients: left out: metrics.json has no gradients" in capsys.readouterr().out


def test_models_without_hpa_and_afr(run, tmp_path):
    place = copy_of(run, tmp_path / "plain")
    file = place / "model_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["model"] = {
        name: tensor
        for name, tensor in checkpoint["model"].items()
        if not name.startswith(("hpa.", "afr."))
    }
    torch.save(checkpoint, file)
    analyse(
        *(place, "--only", "prototypes", "rectification", "confusion"),
        *("--opts", "MODEL.META_ARCHITECTURE", "CATSeg"),
    )
    content = json.loads((place / "analysis/analysis.json").read_text())
    assert content["left_out"] == {
        "prototypes": "the model has no HPA",
        "rectification": "the model has no AFR",
    }
    assert list(content["sections"]) == ["confusion"]


def test_a_confusion_matrix_of_another_evaluation_is_not_drawn(run, tmp_path):
    place = copy_of(run, tmp_path / "mixed")
    results = place / f"inference/{TEST}/results.json"
    content = json.loads(results.read_text())
    content["sem_seg"]["mIoU"] += 1
    results.write_text(json.dumps(content))
    analyse(place, "--only", "confusion")
    left_out = json.loads((place / "analysis/analysis.json").read_text())["left_out"]
    assert "another evaluation" in left_out["confusion"]
    confusion_file(results).unlink()
    analyse(place, "--only", "confusion")
    left_out = json.loads((place / "analysis/analysis.json").read_text())["left_out"]
    assert "is missing; evaluate again" in left_out["confusion"]


def test_the_evaluation_wrote_its_confusion_matrix(run):
    found = read_confusion(run / f"inference/{TEST}/results.json")
    assert found.names == TEST_CLASSES and found.counts.sum() == 3 * 64 * 64


def test_folders_that_are_no_finished_run(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    unfinished = copy_of(run, tmp_path / "unfinished", "model_final.pth")
    damaged = copy_of(run, tmp_path / "damaged", "metrics.json")
    (damaged / "metrics.json").write_text("no json\n")
    odd = copy_of(run, tmp_path / "odd", "results.json")
    (odd / f"inference/{TEST}/results.json").write_text("[]")
    for expected, arguments in (
        ("is not a folder", (tmp_path / "nowhere",)),
        ("has no config.yaml", (tmp_path / "empty",)),
        ("its training is not finished", (unfinished,)),
        ("metrics.json", (damaged,)),
        ("is not a results file", (odd,)),
        ("--count", (run, "--count", 0)),
        ("MODEL.NOTHING", (run, "--opts", "MODEL.NOTHING", 1)),
    ):
        assert expected in refused(capsys, *arguments), arguments
    assert not (unfinished / "analysis").exists()


def test_an_output_that_cannot_be_written_is_one_line(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    output = tmp_path / "file/out"
    assert "--output" in refused(capsys, run, "--only", "prototypes", "--output", output)


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "SOLVER.DIAGNOSTICS_PERIOD" in capsys.readouterr().out


def test_a_class_is_seen_if_its_first_synonym_was_trained_on(run):
    names = ["dog", "tree", "sky, clouds", "hound"]
    assert read_run(str(run), device="cpu").seen(names) == {"dog", "sky, clouds"}
