from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN, EVALUATE, COLLECT = (
    f"-m cat_seg.cli.main {command}" for command in ("train", "evaluate", "results")
)
VARIANTS = ["oft", "hpa_only", "afr_only", "enhanced"]

# Stands in for Python: runs the script itself, notes the arguments of the commands that this
# starts, and does what the files beside it say. `wait` holds a part of the commands that do not
# end, `status` an exit status and a part of its commands.
FAKE_PYTHON = (
    f"""#!/usr/bin/env bash
here=$(dirname "$0")
[[ $1 != -c ]] || exec {sys.executable} "$@"
"""
    + """
if [[ "$*" == *"evaluate --check" ]]; then
    [[ ! -e $here/no_benchmarks ]] || exit 2
    exit 0
fi
printf '%s\\n' "$*" >> "$here/calls"
if [[ -e $here/wait && "$*" == *"$(cat "$here/wait")"* ]]; then
    trap 'touch "$here/stopped"; exit "$(cat "$here/stop_status" 2>/dev/null || echo 143)"' TERM
    touch "$here/started"
    while :; do sleep 0.05; done
fi
if [[ $3 == train && "$*" =~ OUTPUT_DIR\\ ([^ ]+) ]]; then
    mkdir -p "${BASH_REMATCH[1]}"
    touch "${BASH_REMATCH[1]}/model_final.pth"
fi
if [[ -e $here/status ]]; then
    read -r status part < "$here/status"
    [[ "$*" != *"$part"* ]] || exit "$status"
fi
"""
)


@pytest.fixture
def python(tmp_path) -> Path:
    """The folder of a stand-in for Python."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "python").write_text(FAKE_PYTHON)
    (folder / "python").chmod(0o755)
    return folder


@pytest.fixture
def copied(tmp_path) -> Path:
    """A copy of the scripts and configs, whose default output folders are nobody's."""
    root = tmp_path / "copied"
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "tools").mkdir()
    shutil.copytree(
        ROOT / "cat_seg", root / "cat_seg", ignore=shutil.ignore_patterns("__pycache__")
    )
    for script in (*ROOT.glob("*.sh"), ROOT / "tools/scripts.sh"):
        shutil.copy(script, root / script.relative_to(ROOT))
    return root


@pytest.fixture
def run(python, tmp_path):
    """Run a script from another folder; gives its exit status, output and Python's calls."""

    def run(script, *arguments, root=ROOT):
        done = subprocess.run(
            [str(root / script), *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"PYTHON": str(python / "python")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        calls = python / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return done, [line.replace(f"{root}/", "") for line in lines]

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


def test_defaults(run, copied):
    done, calls = run("train_enhanced.sh", "SOLVER.MAX_ITER", "5", root=copied)
    assert done.returncode == 0, done.stderr
    config = "configs/vitb_384_enhanced.yaml"
    assert calls == [train_call(4, config, "output/enhanced", " SOLVER.MAX_ITER 5")]
    _, calls = run("run_train_test.sh", root=copied)
    config = "configs/vitb_384_hyperbolic.yaml"
    final = Path("output/hyperbolic/model_final.pth")
    assert calls == [train_call(4, config, "output/hyperbolic"), evaluate_call(4, config, final)]
    _, calls = run("train_ablation.sh", root=copied)
    assert calls[0] == train_call(4, "configs/vitb_384_oft.yaml", "output/ablation/oft")


@pytest.mark.parametrize("script", ["train_enhanced.sh", "run_train_test.sh"])
@pytest.mark.parametrize(
    ("config", "folder"), [("vitb_384_oft", "oft"), ("vitb_384", "vitb_384"), ("my own", "my own")]
)
def test_each_config_has_a_default_folder_of_its_own(run, copied, script, config, folder):
    file = copied / f"configs/{config}.yaml"
    file.touch()
    _, calls = run(script, 1, file, root=copied)
    assert calls[0] == train_call(1, f"configs/{config}.yaml", f"output/{folder}")


def test_output_dir_among_the_pairs_names_the_folder(run, tmp_path):
    out, given = tmp_path / "out", ("OUTPUT_DIR", tmp_path / "out", "SEED", "3")
    config = "configs/vitb_384_enhanced.yaml"
    _, calls = run("train_enhanced.sh", "1", *given)
    assert calls == [train_call(1, config, out, " SEED 3")]
    _, calls = run("run_train_test.sh", "1", *given)  # trained by the call before
    config = "configs/vitb_384_hyperbolic.yaml"
    assert calls == [evaluate_call(1, config, out / "model_final.pth", more=" SEED 3")]
    _, calls = run("train_ablation.sh", "1", *given)
    assert calls[0] == train_call(1, "configs/vitb_384_oft.yaml", out / "oft", " SEED 3")


def evaluate_call(gpus, config, weights, output=None, more=""):
    output = output or weights.parent / "eval"
    ending = f"MODEL.WEIGHTS {weights} OUTPUT_DIR {output}"
    return f"{EVALUATE} --num-gpus {gpus} --config-file {config}{more} {ending}"


def test_eval_enhanced(run, tmp_path):
    weights = tmp_path / "some folder" / "model_final.pth"
    weights.parent.mkdir()
    weights.touch()
    config = "configs/vitb_384_oft.yaml"
    done, calls = run("eval_enhanced.sh", config, weights)
    assert done.returncode == 0, done.stderr
    assert calls == [evaluate_call(1, config, weights)]
    cpu = ("MODEL.DEVICE", "cpu")
    _, calls = run("eval_enhanced.sh", config, weights, 3, *cpu)
    assert calls == [evaluate_call(3, config, weights, more=" MODEL.DEVICE cpu")]
    _, calls = run("eval_enhanced.sh", config, weights, *cpu, "OUTPUT_DIR", "elsewhere")
    assert calls == [evaluate_call(1, config, weights, "elsewhere", " MODEL.DEVICE cpu")]
    _, calls = run("eval_enhanced.sh", config, weights, "BENCHMARKS", "A-150,MESS", *cpu)
    more = " --benchmarks A-150 MESS MODEL.DEVICE cpu"
    assert calls == [evaluate_call(1, config, weights, more=more)]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("model_final.safetensors", "eval"),
        ("model_0039999.pth", "eval_model_0039999"),
        ("h-clip v1.5.pth", "eval_h-clip v1.5"),
        ("weights", "eval_weights"),
    ],
)
def test_weights_of_one_folder_keep_their_results_apart(run, tmp_path, name, folder):
    weights = tmp_path / "a.folder" / name
    weights.parent.mkdir()
    weights.touch()
    _, calls = run("eval_enhanced.sh", "configs/vitb_384.yaml", weights)
    assert calls == [evaluate_call(1, "configs/vitb_384.yaml", weights, weights.parent / folder)]


def test_weights_below_the_repository_are_found_from_any_folder(run):
    # Any file will do.
    done, calls = run("eval_enhanced.sh", "configs/vitb_384_oft.yaml", "docs/install.md")
    assert done.returncode == 0, done.stderr
    weights = Path("docs/install.md")
    assert calls == [evaluate_call(1, "configs/vitb_384_oft.yaml", weights, "docs/eval_install")]


def test_run_train_test_trains_once_then_evaluates(run, tmp_path):
    out, config = tmp_path / "out", "configs/vitb_384_oft.yaml"
    evaluation = evaluate_call(1, config, out / "model_final.pth")
    _, calls = run("run_train_test.sh", 1, config, out)
    assert calls == [train_call(1, config, out), evaluation]
    _, calls = run("run_train_test.sh", 1, config, out)
    assert calls == [evaluation]


def test_what_training_starts_from_is_not_what_is_evaluated(run, tmp_path):
    start = ("MODEL.WEIGHTS", "start.pth")
    _, calls = run("run_train_test.sh", 1, "configs/vitb_384_oft.yaml", tmp_path / "out", *start)
    assert calls[0].endswith("MODEL.WEIGHTS start.pth")
    assert calls[1].split("MODEL.WEIGHTS ")[-1].startswith(f"{tmp_path}/out/model_final.pth")


def test_train_ablation_trains_what_is_missing_and_evaluates_all(run, tmp_path):
    root = tmp_path / "root"
    (root / "hpa_only").mkdir(parents=True)
    (root / "hpa_only/model_final.pth").touch()
    done, calls = run("train_ablation.sh", 1, root, "SEED", "3")
    assert done.returncode == 0, done.stderr
    expected = []
    for name in VARIANTS:
        config = f"configs/vitb_384_{name}.yaml"
        if name != "hpa_only":
            expected.append(train_call(1, config, root / name, " SEED 3"))
        final = root / name / "model_final.pth"
        expected.append(evaluate_call(1, config, final, more=" SEED 3"))
    table = f"{COLLECT} {root} --output {root}/results.md --chart {root}/results.png"
    assert calls == [*expected, table]
    assert "variant afr_only (3 of 4)" in done.stdout
    assert done.stderr == ""


def test_an_ablation_whose_training_fails_says_where_and_what_to_do(run, python, tmp_path):
    (python / "status").write_text("7 hpa_only.yaml OUTPUT_DIR\n")
    done, calls = run("train_ablation.sh", 1, tmp_path / "root")
    assert done.returncode == 7
    assert len(calls) == 3
    (line,) = done.stderr.splitlines()
    assert re.match(r"unfinished: variant hpa_only \(2 of 4\); .*run the same command again", line)


def test_an_evaluation_that_fails_does_not_keep_an_ablation_from_training(run, python, tmp_path):
    (python / "status").write_text("2 hpa_only.yaml MODEL.WEIGHTS\n")
    done, calls = run("train_ablation.sh", 1, tmp_path / "root")
    assert done.returncode == 1
    assert [" ".join(call.split()[:3]) for call in calls] == [*[TRAIN, EVALUATE] * 4, COLLECT]
    (line,) = done.stderr.splitlines()
    assert line.startswith("unfinished: the evaluation of hpa_only; ")


@pytest.mark.parametrize("script", ["run_train_test.sh", "train_ablation.sh"])
def test_without_a_benchmark_nothing_is_trained(run, python, tmp_path, script):
    (python / "no_benchmarks").touch()
    done, calls = run(script, 1, "OUTPUT_DIR", tmp_path / "out")
    assert (done.returncode, calls) == (2, [])


def test_the_first_failure_ends_a_script_with_its_status(run, python, tmp_path):
    (python / "status").write_text("7\n")
    done, calls = run("run_train_test.sh", 1, "configs/vitb_384_oft.yaml", tmp_path / "out")
    assert done.returncode == 7
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("script", "arguments", "problem"),
    [
        ("train_enhanced.sh", ["many"], "NUM_GPUS is 'many'"),
        ("train_enhanced.sh", ["0"], "NUM_GPUS is '0'"),
        ("train_enhanced.sh", ["1", "nowhere.yaml"], "config 'nowhere.yaml' not found"),
        ("train_enhanced.sh", ["1", "SOLVER.MAX_ITER"], "SOLVER.MAX_ITER needs a value"),
        ("train_enhanced.sh", ["1", "SEED", "3", "more"], "config key such as .*, not 'more'"),
        ("eval_enhanced.sh", [], "CONFIG and WEIGHTS are required"),
        ("eval_enhanced.sh", ["configs/vitb_384.yaml"], "CONFIG and WEIGHTS are required"),
        ("eval_enhanced.sh", ["configs/vitb_384.yaml", "no.pth"], "weights 'no.pth' not found"),
        ("eval_enhanced.sh", ["nowhere.yaml", "README.md"], "config 'nowhere.yaml' not found"),
        ("run_train_test.sh", ["1", "nowhere.yaml"], "config 'nowhere.yaml' not found"),
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


def start(python: Path, part: str, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a script and wait until it runs the command with that part, which does not end."""
    (python / "wait").write_text(part)
    process = subprocess.Popen(
        [str(ROOT / script), *arguments],
        env=os.environ | {"PYTHON": str(python / "python")},
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(500):
        if (python / "started").exists():
            break
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_python(python, tmp_path, signum):
    process = start(python, TRAIN, "train_enhanced.sh", "1", "OUTPUT_DIR", str(tmp_path / "out"))
    process.send_signal(signum)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert (python / "stopped").exists()


def test_a_signal_stops_the_script_also_where_the_command_was_just_done(python, tmp_path):
    (python / "stop_status").write_text("0")
    process = start(python, TRAIN, "train_ablation.sh", "1", str(tmp_path))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert len((python / "calls").read_text().splitlines()) == 1


@pytest.mark.parametrize("part", ["hpa_only.yaml OUTPUT_DIR", "hpa_only.yaml MODEL.WEIGHTS"])
def test_an_interrupted_ablation_ends_and_goes_on(python, run, tmp_path, part):
    process = start(python, part, "train_ablation.sh", "1", str(tmp_path))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "unfinished: variant hpa_only (2 of 4)" in errors
    (python / "wait").unlink()
    (python / "calls").unlink()
    done, calls = run("train_ablation.sh", "1", tmp_path)
    assert done.returncode == 0
    assert sum(TRAIN in call for call in calls) == (3 if "OUTPUT_DIR" in part else 2)
