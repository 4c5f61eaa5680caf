from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN, EVALUATE = "train_net.py", "tools/evaluate_benchmarks.py"

# Stands in for Python: notes its arguments, and does what the files beside it say.
FAKE_PYTHON = """#!/usr/bin/env bash
here=$(dirname "$0")
printf '%s\\n' "$*" >> "$here/calls"
if [[ -e $here/wait ]]; then
    trap 'touch "$here/stopped"; exit 143' TERM
    touch "$here/started"
    while :; do sleep 0.05; done
fi
if [[ $1 == */train_net.py && "$*" =~ OUTPUT_DIR\\ ([^ ]+) ]]; then
    mkdir -p "${BASH_REMATCH[1]}"
    touch "${BASH_REMATCH[1]}/model_final.pth"
fi
if [[ -e $here/status ]]; then exit "$(cat "$here/status")"; fi
"""


@pytest.fixture
def python(tmp_path) -> Path:
    """The folder of a stand-in for Python."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "python").write_text(FAKE_PYTHON)
    (folder / "python").chmod(0o755)
    return folder


@pytest.fixture
def run(python, tmp_path):
    """Run a script from another folder; gives its exit status, output and Python's calls."""

    def run(script, *arguments):
        done = subprocess.run(
            [str(ROOT / script), *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"PYTHON": str(python / "python")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        calls = python / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return done, [line.replace(f"{ROOT}/", "") for line in lines]

    return run


def train_call(gpus, config, output, more=""):
    return f"{TRAIN} --num-gpus {gpus} --config-file {config} OUTPUT_DIR {output}{more}"


def test_train_enhanced(run, tmp_path):
    out = tmp_path / "out"
    done, calls = run("train_enhanced.sh", 2, "configs/vitb_384_oft.yaml", out, "SEED", "3")
    assert done.returncode == 0, done.stderr
    assert calls == [train_call(2, "configs/vitb_384_oft.yaml", out, " SEED 3")]
    (out / "last_checkpoint").touch()
    _, calls = run("train_enhanced.sh", 2, "configs/vitb_384_oft.yaml", out)
    assert calls == [
        train_call(2, "configs/vitb_384_oft.yaml", out).replace("OUTPUT", "--resume OUTPUT")
    ]


def test_defaults(run, python):
    (python / "status").write_text("1")  # nothing is trained: the default folder is a real one
    done, calls = run("train_enhanced.sh", "OUTPUT_DIR", python / "out", "SOLVER.MAX_ITER", "5")
    assert done.returncode == 1
    assert calls == [
        train_call(4, "configs/vitb_384_enhanced.yaml", "output/enhanced")
        + f" OUTPUT_DIR {python}/out SOLVER.MAX_ITER 5"
    ]


def test_eval_enhanced(run, tmp_path):
    weights = tmp_path / "some folder" / "model.pth"
    weights.parent.mkdir()
    weights.touch()
    config = "configs/vitb_384_oft.yaml"
    ending = f"--config-file {config} MODEL.WEIGHTS {weights} OUTPUT_DIR {weights.parent}/eval"
    done, calls = run("eval_enhanced.sh", config, weights)
    assert done.returncode == 0, done.stderr
    assert calls == [f"{EVALUATE} --num-gpus 1 {ending}"]
    _, calls = run("eval_enhanced.sh", config, weights, 3, "MODEL.DEVICE", "cpu")
    assert calls == [f"{EVALUATE} --num-gpus 3 {ending} MODEL.DEVICE cpu"]
    _, calls = run("eval_enhanced.sh", config, weights, "MODEL.DEVICE", "cpu")
    assert calls == [f"{EVALUATE} --num-gpus 1 {ending} MODEL.DEVICE cpu"]


def test_run_train_test_trains_once_then_evaluates(run, tmp_path):
    out, config = tmp_path / "out", "configs/vitb_384_oft.yaml"
    evaluation = (
        f"{EVALUATE} --num-gpus 1 --config-file {config} MODEL.WEIGHTS {out}/model_final.pth "
        f"OUTPUT_DIR {out}/eval"
    )
    _, calls = run("run_train_test.sh", 1, config, out)
    assert calls == [train_call(1, config, out), evaluation]
    _, calls = run("run_train_test.sh", 1, config, out)
    assert calls == [evaluation]


def test_train_ablation_trains_what_is_missing_then_evaluates_all(run, tmp_path):
    names = ["oft", "hpa_only", "afr_only", "enhanced"]
    (tmp_path / "root/hpa_only").mkdir(parents=True)
    (tmp_path / "root/hpa_only/model_final.pth").touch()
    done, calls = run("train_ablation.sh", 1, tmp_path / "root", "SEED", "3")
    assert done.returncode == 0, done.stderr
    trained, evaluated = calls[:3], calls[3:]
    assert trained == [
        train_call(1, f"configs/vitb_384_{name}.yaml", tmp_path / "root" / name, " SEED 3")
        for name in names
        if name != "hpa_only"
    ]
    assert [call.split()[4] for call in evaluated] == [
        f"configs/vitb_384_{name}.yaml" for name in names
    ]
    assert all(call.startswith(EVALUATE) and call.endswith("SEED 3") for call in evaluated)


def test_the_first_failure_ends_a_script_with_its_status(run, python, tmp_path):
    (python / "status").write_text("7")
    done, calls = run("run_train_test.sh", 1, "configs/vitb_384_oft.yaml", tmp_path / "out")
    assert done.returncode == 7
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("script", "arguments", "problem"),
    [
        ("train_enhanced.sh", ["many"], "NUM_GPUS is 'many'"),
        ("train_enhanced.sh", ["0"], "NUM_GPUS is '0'"),
        ("train_enhanced.sh", ["1", "nowhere.yaml"], "there is no config 'nowhere.yaml'"),
        ("train_enhanced.sh", ["1", "SOLVER.MAX_ITER"], "the value of SOLVER.MAX_ITER is missing"),
        ("train_enhanced.sh", ["1", "SEED", "3", "more"], "config key such as .*, not 'more'"),
        ("eval_enhanced.sh", [], "CONFIG and WEIGHTS are needed"),
        ("eval_enhanced.sh", ["configs/vitb_384.yaml"], "CONFIG and WEIGHTS are needed"),
        ("eval_enhanced.sh", ["configs/vitb_384.yaml", "no.pth"], "there are no weights 'no.pth'"),
        ("eval_enhanced.sh", ["nowhere.yaml", "README.md"], "there is no config"),
        ("run_train_test.sh", ["1", "nowhere.yaml"], "there is no config"),
        ("train_ablation.sh", ["-1"], "NUM_GPUS is '-1'"),
        ("train_ablation.sh", ["1", "root", "more"], "config key such as .*, not 'more'"),
    ],
)
def test_wrong_arguments_are_one_line_and_the_usage(run, script, arguments, problem):
    done, calls = run(script, *arguments)
    assert done.returncode == 2
    assert calls == []
    error, usage = done.stderr.splitlines()
    assert re.match(f"error: .*{problem}", error)
    assert usage.startswith(f"usage: {script}")


@pytest.mark.parametrize("script", [path.name for path in ROOT.glob("*.sh")])
def test_help(run, script):
    done, calls = run(script, "--help")
    assert (done.returncode, calls) == (0, [])
    assert done.stdout.startswith(f"usage: {script}")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_python(python, tmp_path, signum):
    (python / "wait").touch()
    script = subprocess.Popen(
        [str(ROOT / "train_enhanced.sh"), "1", "OUTPUT_DIR", str(tmp_path / "out")],
        env=os.environ | {"PYTHON": str(python / "python")},
    )
    for _ in range(500):
        if (python / "started").exists():
            break
        time.sleep(0.02)
    script.send_signal(signum)
    assert script.wait(timeout=30) == 143
    assert (python / "stopped").exists()
