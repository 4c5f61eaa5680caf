"""The tool that installs detectron2, with a small donor wheel in place of labgym's."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tools import install_detectron2 as tool

MODULES = {
    "LabGym/__init__.py": "raise ImportError('LabGym itself is not wanted')\n",
    "LabGym/detectron2/__init__.py": "from .utils import env\n\n__version__ = '0.6'\n",
    # What tells a recent detectron2 from the release 0.6.
    "LabGym/detectron2/config/__init__.py": "from types import SimpleNamespace\n"
    "get_cfg = lambda: SimpleNamespace(SOLVER={'BASE_LR_END': 0, 'NUM_DECAYS': 3})\n",
    "LabGym/detectron2/utils/__init__.py": "",
    "LabGym/detectron2/utils/comm.py": "def create_local_process_group(size): pass\n",
    "LabGym/detectron2/utils/events.py": "class EventStorage:\n"
    "    def put_scalar(self, name, value, cur_iter=None): pass\n",
    "LabGym/detectron2/utils/env.py": "NAME = 'LabGym.detectron2.utils'\n",
    "LabGym/detectron2/data/__init__.py": "from LabGym.detectron2.utils.env import NAME\n",
    "LabGym/detectron2/engine/__init__.py": "class DefaultTrainer:\n"
    "    def state_dict(self): pass\n"
    "class TrainerBase:\n"
    "    def after_backward(self): pass\n"
    "class SimpleTrainer(TrainerBase):\n"
    "    def reset_data_loader(self, builder): pass\n",
    "LabGym/detectron2/evaluation/__init__.py": "",
    "LabGym/detectron2/modeling/__init__.py": "",
    "LabGym/detectron2/projects/__init__.py": "",
    "LabGym/detectron2/projects/deeplab/__init__.py": "",
    "LabGym/detectron2/projects/point_rend/__init__.py": "",
    "LabGym/detectron2/model_zoo/configs/base.yaml": "VERSION: 2\n",
    # As the real donor: for other versions of Python, and with dependencies that are not wanted.
    "labgym-3.1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: LabGym\nVersion: 3.1.2\n"
    "Requires-Python: <3.0\nRequires-Dist: no-such-distribution\n",
    "labgym-3.1.2.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
    "Tag: py3-none-any\n",
    "labgym-3.1.2.dist-info/RECORD": "",
}


def write_donor(folder: Path, modules: dict[str, str]) -> Path:
    wheel = folder / "labgym-3.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in modules.items():
            archive.writestr(name, text)
    return wheel


@pytest.fixture(scope="module")
def donor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_donor(tmp_path_factory.mktemp("donor"), MODULES)


@pytest.fixture(scope="module")
def without_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without_pip")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def with_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that uses the pip of this one: sooner there than a new one."""
    folder = tmp_path_factory.mktemp("with_pip")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    pip = importlib.metadata.distribution("pip")
    for name in ("pip", f"pip-{pip.version}.dist-info"):
        (packages / name).symlink_to(pip.locate_file(name))
    return folder / "bin" / "python"


def run(python: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python where pip reaches no package index and the caller's settings do not count."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHON", "COV_"))
    }
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"} | variables
    return subprocess.run(
        [str(python), *arguments], env=environment, capture_output=True, text=True, check=False
    )


def run_tool(python: Path, donor: Path | None = None, **variables: str):
    """Run the tool as a script, or with another donor than labgym's own wheel."""
    if donor is None:
        return run(python, tool.__file__, **variables)
    digest = hashlib.sha256(donor.read_bytes()).hexdigest()
    code = (
        f"import sys; sys.path.insert(0, {str(Path(tool.__file__).parent)!r}); sys.argv = ['tool'];"
        f"import install_detectron2 as tool; tool.DONOR_SHA256 = {digest!r}; tool.main()"
    )
    return run(python, "-c", code, PIP_FIND_LINKS=str(donor.parent), **variables)


def assert_one_line_error(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from LabGym.detectron2.config import x", "from detectron2.config import x"),
        ("import LabGym.detectron2._C as _C", "import detectron2._C as _C"),
        ("getLogger('LabGym.detectron2')", "getLogger('detectron2')"),
        ("import LabGym.detectron2tools", "import LabGym.detectron2tools"),
        ("from detectron2.x import LabGym", "from detectron2.x import LabGym"),
    ],
)
def test_rename_touches_the_module_path_alone(source: str, expected: str) -> None:
    assert tool.rename(source) == expected


def test_wheel_holds_detectron2_alone_under_its_own_name(donor: Path, tmp_path: Path) -> None:
    wheel = tool.build_wheel(write_donor(tmp_path, MODULES))
    assert wheel.name == f"detectron2-{tool.VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        packaged = {name for name in archive.namelist() if ".dist-info/" not in name}
        taken = {name for name in MODULES if name.startswith("LabGym/detectron2/")}
        assert packaged == {name.removeprefix("LabGym/") for name in taken}
        assert archive.read("detectron2/model_zoo/configs/base.yaml") == b"VERSION: 2\n"
        for name in packaged:
            assert b"LabGym" not in archive.read(name)


def test_wheel_metadata_says_what_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tool.build_wheel(write_donor(tmp_path, MODULES))) as archive:
        info = f"detectron2-{tool.VERSION}.dist-info"
        metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
        license = archive.read(f"{info}/LICENSE").decode()
    assert metadata["Name"] == "detectron2"
    assert metadata["Version"] == "0.6+labgym.3.1.2"
    assert metadata["License"] == "Apache-2.0"
    assert "labgym" in metadata["Summary"]
    assert tuple(metadata.get_all("Requires-Dist")) == tool.REQUIRES
    assert "Apache License" in license


def test_wheel_record_has_hash_and_size_of_every_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tool.build_wheel(write_donor(tmp_path, MODULES))) as archive:
        path = f"detectron2-{tool.VERSION}.dist-info/RECORD"
        rows = {row[0]: row[1:] for row in csv.reader(archive.read(path).decode().splitlines())}
        assert rows.keys() == set(archive.namelist())
        assert rows.pop(path) == ["", ""]
        for name, (digest, size) in rows.items():
            data = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
            assert digest == "sha256=" + expected.rstrip("=")
            assert int(size) == len(data)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"LabGym/__init__.py": ""}, "contains no LabGym/detectron2/__init__.py"),
        (MODULES | {"LabGym/detectron2/x.py": "from LabGym import a"}, "LabGym in detectron2/x.py"),
    ],
)
def test_unexpected_donor_is_refused(tmp_path: Path, modules: dict, message: str) -> None:
    with pytest.raises(tool.InstallError, match=message):
        tool.build_wheel(write_donor(tmp_path, modules))


def test_donor_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    donor = tmp_path / "labgym-3.1.2-py3-none-any.whl"
    donor.write_text("<html>login</html>")
    with pytest.raises(tool.InstallError, match="is not a wheel"):
        tool.build_wheel(donor)


def test_installs_and_uninstalls_as_a_normal_distribution(donor: Path, with_pip: Path) -> None:
    first = run_tool(with_pip, donor)
    assert first.returncode == 0, first.stderr
    assert "detectron2 0.6 in " in first.stdout
    shown = run(with_pip, "-m", "pip", "show", "detectron2").stdout
    assert "Version: 0.6+labgym.3.1.2" in shown
    assert "License: Apache-2.0" in shown
    assert "detectron2==0.6+labgym.3.1.2" in run(with_pip, "-m", "pip", "freeze").stdout

    again = run_tool(with_pip, donor)
    assert again.returncode == 0
    assert "is already installed; leaving it unchanged" in again.stdout

    package = Path(first.stdout.split(" in ")[-1].split(" is installed")[0])
    assert package.is_dir()
    run(with_pip, "-m", "pip", "uninstall", "--yes", "detectron2")
    assert not package.exists()


def test_incomplete_detectron2_is_reported(tmp_path: Path, with_pip: Path) -> None:
    modules = {name: text for name, text in MODULES.items() if "/engine/" not in name}
    result = run_tool(with_pip, write_donor(tmp_path, modules))
    run(with_pip, "-m", "pip", "uninstall", "--yes", "detectron2")
    assert_one_line_error(result, "detectron2.engine", "requirements.txt")


def test_wrong_hash_installs_nothing(donor: Path, with_pip: Path) -> None:
    result = run_tool(with_pip, PIP_FIND_LINKS=str(donor.parent))
    assert_one_line_error(result, "does not have the SHA-256", tool.DONOR_SHA256)
    assert run(with_pip, "-m", "pip", "show", "detectron2").returncode != 0


def test_unreachable_index_is_one_line(with_pip: Path) -> None:
    result = run_tool(with_pip, PIP_NO_INDEX="0", PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert_one_line_error(result, "could not download labgym==3.1.2", "docs/install.md")


def test_missing_pip_is_one_line(without_pip: Path) -> None:
    assert_one_line_error(run_tool(without_pip), "has no pip", "-m ensurepip")


def write_detectron2(folder: Path, **changes: str) -> Path:
    """Write the modules of MODULES as a detectron2, some of them (engine="...") changed."""
    package = folder / "detectron2"
    for name, text in MODULES.items():
        if name.startswith("LabGym/detectron2/"):
            file = folder / name.removeprefix("LabGym/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(tool.rename(changes.get(file.parent.name, text)))
    return package


def test_a_recent_detectron2_is_left_alone(tmp_path: Path, without_pip: Path) -> None:
    package = write_detectron2(tmp_path)
    (package / "__init__.py").write_text("__version__ = '0.7.dev'\n")
    before = sorted(package.rglob("*.py"))
    result = run_tool(without_pip, PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"detectron2 0.7.dev in {package} is already installed")
    assert sorted(package.rglob("*.py")) == before


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (
            "class TrainerBase: pass\nDefaultTrainer = SimpleTrainer = TrainerBase\n",
            "reset_data_loader",
        ),
        ("import math; math.LINEAR_of_Pillow\n", "LINEAR_of_Pillow"),
    ],
)
def test_the_release_0_6_is_too_old(
    tmp_path: Path, without_pip: Path, engine: str, reason: str
) -> None:
    """It lacks what the project uses; beside a recent Pillow it does not import at all."""
    write_detectron2(tmp_path, engine=engine)
    result = run_tool(without_pip, PYTHONPATH=str(tmp_path))
    assert_one_line_error(result, reason, "pip uninstall detectron2")


def test_detectron2_that_does_not_import_is_reported(tmp_path: Path, without_pip: Path) -> None:
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("import no_such_module\n")
    result = run_tool(without_pip, PYTHONPATH=str(tmp_path))
    assert_one_line_error(result, "cannot be imported", "no_such_module", "requirements.txt")


def test_folder_of_that_name_is_not_taken_for_detectron2(tmp_path: Path) -> None:
    (tmp_path / "detectron2").mkdir()
    probe = run(Path(sys.executable), "-S", "-c", tool.PROBE, PYTHONPATH=str(tmp_path))
    assert (probe.returncode, probe.stdout) == (0, "")
