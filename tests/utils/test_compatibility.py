"""A detectron2 without what this project uses is refused at the start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.config.defaults import _C as defaults
from detectron2.engine import DefaultTrainer, SimpleTrainer, TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from cat_seg.utils.compatibility import detectron2_problem
from cat_seg.utils.paths import REPO_ROOT


def test_the_installed_detectron2_will_do():
    assert detectron2_problem() is None


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (SimpleTrainer, "reset_data_loader", "SimpleTrainer.reset_data_loader"),
        (TrainerBase, "after_backward", "TrainerBase.after_backward"),
        (DefaultTrainer, "state_dict", "the trainer's state in checkpoints"),
        (comm, "create_local_process_group", "processes on the CPU"),
    ],
)
def test_what_is_missing_is_named(monkeypatch, owner, name, said):
    monkeypatch.delattr(owner, name)
    problem = detectron2_problem()
    assert f"is too old (it lacks {said}); run `pip uninstall detectron2`, then `python " in problem
    assert "\n" not in problem


def test_older_arguments_and_keys_are_named_too(monkeypatch):
    monkeypatch.setattr(EventStorage, "put_scalar", lambda self, name, value, hint=True: None)
    for key in ("BASE_LR_END", "NUM_DECAYS"):
        monkeypatch.delitem(defaults.SOLVER, key)
    problem = detectron2_problem()
    assert "(it lacks put_scalar(cur_iter), SOLVER.BASE_LR_END, SOLVER.NUM_DECAYS)" in problem


@pytest.mark.parametrize("script", ["train_net.py", "tools/evaluate_benchmarks.py", "demo/demo.py"])
def test_a_script_says_it_in_one_line(tmp_path, script):
    """As the release 0.6 of detectron2 beside Pillow 10, which has no Image.LINEAR."""
    package = tmp_path / "detectron2"
    for name, text in {
        "__init__.py": "__version__ = '0.6'\n",
        "config/__init__.py": "class CfgNode: pass\ndef get_cfg(): pass\n",
        "engine/__init__.py": "from PIL import Image\nImage.LINEAR\n",
        "utils/__init__.py": "",
        "utils/logger.py": "def setup_logger(): pass\n",
    }.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    done = subprocess.run(
        [sys.executable, str(Path(REPO_ROOT, script)), "--help"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: detectron2 0.6 in {package} is too old (module 'PIL")
    assert done.stderr.count("\n") == 1
