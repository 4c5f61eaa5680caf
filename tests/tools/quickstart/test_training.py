"""How train_net.py and demo.py are called, watched and stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cat_seg.engine import load_config
from cat_seg.errors import UserError
from tools.quickstart import scripts, training
from tools.quickstart.training import CONFIG, FULL, PLAIN, SYSTEMS, System, Workplace

# Stands in for train_net.py and demo.py: writes down how it was called.
RECORDER = """
import json, os, sys, time
at = sys.argv.index("--output") if "--output" in sys.argv else sys.argv.index("OUTPUT_DIR")
folder = sys.argv[at + 1]
os.makedirs(folder, exist_ok=True)
with open(os.path.join(folder, "call.json"), "w") as file:
    json.dump({"argv": sys.argv[1:], }, file)
"""
SLEEPER = """
import signal, sys, time
def stop(*_):
    open(sys.argv[sys.argv.index("OUTPUT_DIR") + 1] + "/saved", "w").close()
    raise SystemExit(143)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.setattr(training, "REPO_ROOT", tmp_path)
    monkeypatch.setattr(scripts, "POLL", 0.02)
    (tmp_path / "demo").mkdir()
    return Workplace(tmp_path / "out", seed=5, options=("SOLVER.MAX_ITER", "7"))


def ignore(done: int) -> None:
    """Follow no progress."""


def script(place: Workplace, text: str, name: str = "train_net.py") -> None:
    (place.folder.parent / name).write_text(text)


def call(folder: Path) -> dict:
    return json.loads((folder / "call.json").read_text())


@pytest.mark.parametrize("system", SYSTEMS)
def test_train_net_gets_the_config_the_data_and_the_seed(place: Workplace, system: System) -> None:
    script(place, RECORDER)
    training.train_and_evaluate(place, system, steps=7, follow=ignore)

    recorded = call(place.folder / system.name)
    arguments = recorded["argv"]
    assert arguments[:2] == ["--config-file", str(CONFIG)]
    assert arguments[2] == ("--resume" if system.trained else "--eval-only")
    cfg = load_config(arguments[1], arguments[3:])
    for name in ("quickstart_train", "quickstart_val_seen", "quickstart_val_unseen"):
        for folder in (cfg.DATASETS.CUSTOM[name].IMAGES, cfg.DATASETS.CUSTOM[name].LABELS):
            assert Path(folder).is_relative_to(place.dataset)
    assert cfg.TEST.ALLOW_UNTRAINED is not system.trained
    assert cfg.SEED == 5
    assert cfg.SOLVER.MAX_ITER == 7
    assert str(place.clip_weights) == cfg.MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS
    assert Path(cfg.OUTPUT_DIR) / "model_final.pth" == place.checkpoint(system)
    enhanced = cfg.MODEL.META_ARCHITECTURE == "EnhancedCATSeg"
    hyperbolic = system in (PLAIN["hyperbolic"], FULL["hyperbolic"])
    orthogonal = system in (PLAIN["oft"], FULL["oft"])
    tuning = "hyperbolic" if hyperbolic else "oft_both" if orthogonal else "frozen"
    assert tuning == cfg.MODEL.SEM_SEG_HEAD.CLIP_FINETUNE
    assert enhanced is (system in FULL.values())


def test_demo_gets_the_images_and_the_weights(place: Workplace) -> None:
    script(place, RECORDER, "demo/demo.py")
    output = place.folder / "overlays"
    training.draw_demo(place, FULL["oft"], [Path("a.png"), Path("b.png")], output)

    arguments = call(output)["argv"]
    at = arguments.index("--input")
    assert arguments[at + 1 : at + 3] == ["a.png", "b.png"]
    assert arguments[arguments.index("--vocabulary") + 1] == "quickstart"
    assert "--save-masks" in arguments
    options = arguments[arguments.index("--opts") + 1 :]
    cfg = load_config(str(CONFIG), options)
    assert str(place.checkpoint(FULL["oft"])) == cfg.MODEL.WEIGHTS


def test_progress_follows_the_metrics_file(place: Workplace) -> None:
    script(
        place,
        RECORDER
        + """
with open(os.path.join(folder, "metrics.json"), "w") as file:
    file.write('{"iteration": 3}\\n{"iterat')
time.sleep(0.3)
with open(os.path.join(folder, "metrics.json"), "w") as file:
    file.write('{"iteration": 3}\\n{"iteration": 7, "mIoU": 1.0}\\n')
""",
    )
    seen = []
    training.train_and_evaluate(place, FULL["oft"], steps=7, follow=seen.append)
    assert sorted(set(seen)) == [0, 4, 7]


def test_a_failure_names_the_log_and_its_last_line(place: Workplace) -> None:
    script(place, "print('starting')\nraise SystemExit('error: no such thing')")
    log = place.folder / "full" / "console.txt"
    with pytest.raises(UserError, match=f"train_net.py.*status 1: error: no such thing.*{log}"):
        training.train_and_evaluate(place, FULL["oft"], steps=7, follow=ignore)


def test_an_interrupt_stops_the_process_and_lets_it_save(place: Workplace) -> None:
    script(place, SLEEPER)
    console = place.folder / "full" / "console.txt"

    def interrupt(*_: object) -> None:
        if console.exists() and "ready" in console.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train_and_evaluate(place, FULL["oft"], 7, interrupt)
    assert (place.folder / "full" / "saved").exists()


def test_stop_ends_a_script_of_another_thread_and_lets_it_save(place: Workplace) -> None:
    script(place, SLEEPER)
    console = place.folder / "full" / "console.txt"

    def stop_when_ready(done: int) -> None:
        if console.exists() and "ready" in console.read_text():
            place.scripts.stop()

    with pytest.raises(KeyboardInterrupt):
        training.train_and_evaluate(place, FULL["oft"], 7, stop_when_ready)
    assert (place.folder / "full" / "saved").exists()


def test_scripts_get_their_threads(place: Workplace) -> None:
    log = place.folder / "log.txt"
    program = "import os; print(os.environ['OMP_NUM_THREADS'])"
    scripts.Scripts(threads=3).run(["-c", program], log, lambda: None)
    assert log.read_text() == "3\n"
