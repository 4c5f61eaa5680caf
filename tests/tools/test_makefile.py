"""make's targets and the set-up behind them, in a small copy of the repository and offline."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cat_seg.utils.paths import REPO_ROOT

STUB_DETECTRON2 = {
    "detectron2/__init__.py": "__version__ = '0.6'\n",
    "detectron2-0.6.dist-info/METADATA": "Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6\n",
    "detectron2-0.6.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
    "Tag: py3-none-any\n",
    "detectron2-0.6.dist-info/RECORD": "detectron2/__init__.py,,\n",
}
# In place of the standard library's: the pip of this environment, sooner than pip's own set-up.
ENSUREPIP = """
import pathlib, shutil, sysconfig
for source in map(pathlib.Path, {sources!r}):
    target = pathlib.Path(sysconfig.get_path("purelib"), source.name)
    shutil.copytree(source, target, dirs_exist_ok=True)
"""
# A Python that has the right version and every package, and whose pip finds much to do.
STUB_PYTHON = """#!/bin/sh
if [ "$2" = venv ]; then
    for last; do :; done
    mkdir -p "$last/bin"
    cp "$0" "$last/bin/python"
fi
[ "$2" = pip ] || exit 0
echo "Collecting torch"
echo "  Downloading torch-2.4.0-cp312-cp312-linux_x86_64.whl (539.2 MB)"
echo "  Downloading einops-0.8.0-py3-none-any.whl (43.1 kB)"
echo "Installing collected packages: einops, torch"
exit "${PIP_STATUS:-0}"
"""
# Says where it runs, and that what stands in .venv alone is found there too.
MAIN = "import sys, only_below; print(sys.prefix.rsplit('/')[-1], sys.argv[1:])\n"
REFUSING_PYTHON = '#!/bin/sh\n[ "$1" != --version ] || echo "Python 3.15.0"\nexit 1\n'


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository whose requirements.txt is a small detectron2 that pip finds in a folder."""
    root = tmp_path / "repo of mine"
    (root / "tools" / "quickstart").mkdir(parents=True)
    (root / "tests").mkdir()
    for name in ("Makefile", "tools/set_up.sh", "tools/install_detectron2.py", ".ci/run"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO_ROOT / name, root / name)
    (root / "cat_seg" / "utils").mkdir(parents=True)
    (root / "cat_seg" / "utils" / "compatibility.py").write_text("def detectron2_problem(): pass\n")
    (root / "pyproject.toml").touch()
    (root / "requirements.txt").write_text("detectron2\n")
    (root / "tests" / "requirements.txt").write_text("detectron2\n")
    (root / "tests" / "app").mkdir()
    (root / "tests" / "app" / "requirements.txt").write_text(
        "-r ../../cat_seg/app/requirements.txt\n"
    )
    (root / "cat_seg" / "app").mkdir()
    (root / "cat_seg" / "app" / "requirements.txt").write_text("detectron2\n")
    (root / "cat_seg" / "cli").mkdir()
    (root / "cat_seg" / "cli" / "main.py").write_text(MAIN)
    (root / "tools" / "quickstart" / "__main__.py").write_text("import sys; print(sys.argv[1:])\n")
    pip = importlib.metadata.distribution("pip")
    sources = [str(pip.locate_file(f"pip{end}")) for end in ("", f"-{pip.version}.dist-info")]
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "ensurepip.py").write_text(ENSUREPIP.format(sources=sources))
    with zipfile.ZipFile(tmp_path / "detectron2-0.6-py3-none-any.whl", "w") as archive:
        for name, text in STUB_DETECTRON2.items():
            archive.writestr(name, text)
    return root


def make(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHON", "MAKE", "MFLAGS", "COV_"))
    }
    environment |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(root.parent),
        "PYTHONPATH": str(root.parent / "python"),
    }
    command = ["make", *arguments]
    if "PYTHON" not in variables:
        command.append(f"PYTHON={sys.executable}")
    return subprocess.run(
        command, cwd=root, env=environment | variables, capture_output=True, text=True, check=False
    )


def write_executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def errors(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode != 0
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def test_quickstart_sets_up_once(repo: Path) -> None:
    first = make(repo, "quickstart")
    assert first.returncode == 0, first.stderr
    assert "Creating .venv" in first.stdout
    assert "detectron2 0.6 in " in first.stdout
    assert (
        "['--output', 'output/quickstart', '--adapter', 'oft', '--encoder', 'clip']" in first.stdout
    )

    second = make(repo, "quickstart")
    assert second.returncode == 0
    assert "Installing" not in second.stdout
    assert (
        "['--output', 'output/quickstart', '--adapter', 'oft', '--encoder', 'clip']"
        in second.stdout
    )


@pytest.mark.parametrize("encoder", ["eva02", "siglip"])
def test_each_encoder_has_a_quickstart_of_its_own(repo: Path, encoder: str) -> None:
    result = make(repo, "quickstart", f"ENCODER={encoder}")
    assert f"'output/quickstart_{encoder}', '--adapter', 'oft', '--encoder', '{encoder}'" in (
        result.stdout
    )


def test_demo_has_an_environment_on_top(repo: Path) -> None:
    assert make(repo, "setup").returncode == 0
    packages = next(repo.glob(".venv/lib/python*/site-packages"))
    (packages / "only_below.py").touch()
    first = make(repo, "demo")
    assert first.returncode == 0, first.stderr
    assert "Installing tests/app/requirements.txt into .venv-demo" in first.stdout
    assert ".venv-demo ['demo']" in first.stdout
    second = make(repo, "demo")
    assert "Installing" not in second.stdout
    assert ".venv-demo ['demo']" in second.stdout
    changed = make(repo, "--dry-run", "--what-if=cat_seg/app/requirements.txt", "demo")
    assert "tests/app/requirements.txt" in changed.stdout


def test_tests_of_the_page_and_of_pictures_run_with_the_page_s_pillow(repo: Path) -> None:
    commands = make(repo, "--dry-run", "test").stdout
    [line] = [line for line in commands.splitlines() if " .venv-demo/bin/python -m pytest" in line]
    assert {"tests/app", "tests/visualization"} <= set(line.split())
    assert commands.index(line) > commands.index("--cov-fail-under")


def test_set_up_is_done_again_when_what_it_depends_on_changes(repo: Path) -> None:
    write_executable(repo / ".venv" / "bin" / "python", STUB_PYTHON)
    assert make(repo, "lint").returncode == 0
    inputs = ["requirements.txt", "tools/set_up.sh", "tools/install_detectron2.py"]
    assert make(repo, "--question", "setup").returncode == 0
    for name in inputs:
        assert make(repo, "--question", f"--what-if={name}", "setup").returncode == 1
    for name in [*inputs, "tests/requirements.txt", "pyproject.toml"]:
        changed = make(repo, "--dry-run", f"--what-if={name}", "lint")
        assert "tests/requirements.txt" in changed.stdout
    assert "tests/requirements.txt" not in make(repo, "--dry-run", "lint").stdout


def test_set_up_mends_what_was_cut_short(repo: Path) -> None:
    # A pip without metadata was killed while it was being installed.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", repo / ".venv"], check=True)
    packages = next(repo.glob(".venv/lib/python*/site-packages"))
    (packages / "pip").mkdir()
    (packages / "pip" / "__init__.py").touch()
    kept = repo / ".venv" / "kept"
    kept.touch()
    assert make(repo, "setup").returncode == 0
    assert kept.exists()

    # A Python that is gone takes its packages with it.
    python = repo / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("no-such-python")
    (repo / ".venv" / ".ready").unlink()
    result = make(repo, "setup")
    assert result.returncode == 0
    assert "Creating .venv" in result.stdout
    assert subprocess.run([python, "-c", "import detectron2"], check=False).returncode == 0


def test_failed_set_up_says_so_and_is_done_again(repo: Path) -> None:
    (repo / "requirements.txt").write_text("no-such-distribution\n")
    write_executable(repo / ".venv" / "bin" / "python", STUB_PYTHON)
    failed = make(repo, "setup", PIP_STATUS="1")
    assert errors(failed) == [
        "error: requirements.txt could not be installed: see pip's error above"
    ]
    assert not (repo / ".venv" / ".ready").exists()
    assert "Installing requirements.txt" in make(repo, "setup").stdout


def test_pip_shows_large_downloads_alone(repo: Path) -> None:
    write_executable(repo / ".venv" / "bin" / "python", STUB_PYTHON)
    result = make(repo, "setup")
    assert result.returncode == 0
    assert "Downloading torch-2.4.0-cp312-cp312-linux_x86_64.whl (539.2 MB)" in result.stdout
    assert "Unpacking" in result.stdout
    assert "einops" not in result.stdout


def test_python_of_another_version_is_refused(repo: Path) -> None:
    other = write_executable(repo.parent / "python3.15", REFUSING_PYTHON)
    [message] = errors(make(repo, "setup", PYTHON=str(other)))
    assert f"{other} is not Python 3.10 to 3.14" in message
    assert "make PYTHON=" in message
    assert not (repo / ".venv").exists()


def test_python_is_looked_for_where_none_is_named(repo: Path) -> None:
    folder = repo.parent / "bin"
    write_executable(folder / "python3", REFUSING_PYTHON)
    write_executable(folder / "python3.14", REFUSING_PYTHON)
    write_executable(folder / "python3.13", STUB_PYTHON)
    result = make(repo, "setup", PYTHON="", PATH=f"{folder}:{os.environ['PATH']}")
    assert result.returncode == 0, result.stderr
    assert (repo / ".venv" / "bin" / "python").read_text() == STUB_PYTHON


def test_venv_of_another_version_is_named_and_kept(repo: Path) -> None:
    working = REFUSING_PYTHON.replace("exit 1", '[ -z "$2" ]')
    python = write_executable(repo / ".venv" / "bin" / "python", working)
    [message] = errors(make(repo, "setup"))
    assert ".venv has Python 3.15.0" in message
    assert python.exists()


def test_missing_ensurepip_names_the_package_to_install(repo: Path) -> None:
    (repo.parent / "python" / "ensurepip.py").write_text("raise ImportError\n")
    [message] = errors(make(repo, "setup"))
    assert "apt install python3-venv" in message


def test_help_is_the_default_and_names_every_target(repo: Path) -> None:
    result = make(repo)
    assert result.returncode == 0
    for target in ("setup", "quickstart", "demo", "test", "test-demo", "lint", "clean"):
        assert f"  {target} " in result.stdout
    assert not (repo / ".venv").exists()


def test_test_lints_and_asks_for_coverage(repo: Path) -> None:
    commands = make(repo, "--dry-run", "test").stdout
    steps = ["ruff check .", "ruff format --check .", "pytest --cov=cat_seg"]
    assert [commands.index(step) for step in steps] == sorted(map(commands.index, steps))
    assert "--cov-fail-under=90" in commands
    assert "tests/requirements.txt" in commands


@pytest.mark.parametrize("target", ["test", "test-fast"])
def test_tests_run_on_all_cores_with_a_thread_each(repo: Path, target: str) -> None:
    commands = make(repo, "--dry-run", target).stdout.splitlines()
    command = [line for line in commands if " .venv/bin/python -m pytest" in line][-1]
    assert command.startswith("OMP_NUM_THREADS=1 ")
    assert "-n auto" in command and "--dist loadfile" in command
    assert ('-m "not slow"' in command) == (target == "test-fast")


def test_clean_keeps_the_environment_and_the_results(repo: Path) -> None:
    kept = [".venv/lib/__pycache__/a.pyc", "output/run/model_final.pth", "tools/set_up.sh"]
    removed = ["build/x", "hps_seg.egg-info/PKG-INFO", ".coverage", "tools/__pycache__/a.pyc"]
    for name in [*kept, *removed]:
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).touch()
    assert make(repo, "clean").returncode == 0
    assert all((repo / name).exists() for name in kept)
    assert not any((repo / name).exists() for name in removed)


def test_ci_runs_the_test_target_and_passes_its_status_on(repo: Path) -> None:
    folder = repo.parent / "bin"
    write_executable(folder / "make", '#!/bin/sh\necho "$PWD: $*"\nexit 7\n')
    result = subprocess.run(
        ["bash", str(repo / ".ci" / "run")],
        cwd=repo.parent,
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (7, f"{repo}: test\n")
