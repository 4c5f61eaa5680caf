"""Install detectron2 as a pip-managed package, without a compiler and without GitHub.

detectron2 has no release on PyPI. The wheel of labgym 3.1.2, which is there, carries the Python
files of detectron2 at upstream commit 864913f0 (2024-01-08) under `LabGym.detectron2`. This tool
takes those files alone, gives them their own name back and installs them as a wheel. A detectron2
that is there already stays as it is. docs/install.md has the reasons and the other ways.

Usage: python tools/install_detectron2.py
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

DONOR = "labgym==3.1.2"
DONOR_SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
DONOR_PACKAGE = "LabGym/detectron2/"
VERSION = "0.6+labgym.3.1.2"
# What detectron2 imports as it starts. OpenCV too, but two distributions provide that.
REQUIRES = (
    "cloudpickle",
    "fvcore",
    "iopath",
    "matplotlib",
    "numpy",
    "omegaconf",
    "pillow",
    "pycocotools",
    "pyyaml",
    "tabulate",
    "tensorboard",
    "termcolor",
    "torch",
    "torchvision",
)
ROOT = Path(__file__).resolve().parent.parent
LICENSE = ROOT / "tools" / "detectron2_license.txt"

# Prints version and folder, nothing where there is no detectron2; a broken one raises.
PROBE = """
from importlib.util import find_spec
found = find_spec("detectron2")
if found is not None and found.origin is not None:
    import detectron2
    print(detectron2.__version__, "in", *detectron2.__path__)
"""
# Prints why the detectron2 that is there is too old, or an empty line.
CHECK = """
import runpy, sys
problem = runpy.run_path(sys.argv[1])["detectron2_problem"]()
print(problem or "")
"""
VERIFY = """
import detectron2.data, detectron2.engine, detectron2.evaluation, detectron2.modeling
import detectron2.projects.deeplab, detectron2.projects.point_rend
"""


class InstallError(RuntimeError):
    """detectron2 cannot be installed; the message is one line that says why and what to do."""


def find_detectron2() -> str | None:
    """The version and folder of the detectron2 that this Python imports, None without one.

    Raises:
        InstallError: there is one, but it cannot be imported.
    """
    result = _python("-c", PROBE)
    if result.returncode != 0:
        raise InstallError(
            f"a detectron2 is installed but does not import ({_last_line(result.stderr)}): "
            "first run pip install -r requirements.txt, or pip uninstall detectron2"
        )
    return result.stdout.strip() or None


def check() -> None:
    """Make sure that the detectron2 that is installed is recent enough.

    Raises:
        InstallError: it is too old, or it cannot be imported.
    """
    result = _python("-W", "ignore", "-c", CHECK, str(ROOT / "cat_seg/utils/compatibility.py"))
    if result.returncode != 0:
        raise InstallError(
            f"a detectron2 is installed but does not import ({_last_line(result.stderr)}): "
            "first run pip install -r requirements.txt, or pip uninstall detectron2"
        )
    if problem := result.stdout.strip():
        raise InstallError(problem)


def download(folder: Path) -> Path:
    """Let pip download the donor's wheel into a folder and check its SHA-256.

    Raises:
        InstallError: no such file, no network, or a file with another hash.
    """
    requirement = folder / "donor.txt"
    requirement.write_text(f"{DONOR} --hash=sha256:{DONOR_SHA256}\n", encoding="utf-8")
    # The donor as a whole is for Python < 3.11; the part taken from it is not.
    options = "--no-deps --only-binary :all: --ignore-requires-python --require-hashes"
    limits = "--retries 2 --timeout 15"
    result = _python(
        *f"-m pip download --no-input {options} {limits}".split(),
        *("--dest", str(folder), "--requirement", str(requirement)),
    )
    if "DO NOT MATCH THE HASHES" in result.stderr:
        raise InstallError(
            f"the {DONOR} that pip found does not have the SHA-256 {DONOR_SHA256}: "
            "nothing was installed; check which package index pip uses (pip config list)"
        )
    if result.returncode != 0:
        raise InstallError(
            f"pip could not download {DONOR} ({_error_line(result.stderr)}): check the network "
            "and pip's package index, or see docs/install.md for other ways"
        )
    return next(folder.glob("*.whl"))


def rename(source: str) -> str:
    """Give the modules in a Python source their upstream names: `LabGym.detectron2` no more."""
    return re.sub(r"\bLabGym\.detectron2\b", "detectron2", source)


def build_wheel(donor: Path) -> Path:
    """Write a wheel of the donor's detectron2, under its own name, beside the donor's wheel.

    Raises:
        InstallError: the donor is no wheel with a detectron2 in it, or renaming is incomplete.
    """
    try:
        with zipfile.ZipFile(donor) as archive:
            files = {
                "detectron2/" + name.removeprefix(DONOR_PACKAGE): archive.read(name)
                for name in archive.namelist()
                if name.startswith(DONOR_PACKAGE) and not name.endswith("/")
            }
    except zipfile.BadZipFile as error:
        raise InstallError(f"{donor.name} is not a wheel ({error})") from error
    if "detectron2/__init__.py" not in files:
        raise InstallError(f"{donor.name} holds no {DONOR_PACKAGE}__init__.py")
    for name in files:
        if name.endswith(".py"):
            files[name] = rename(files[name].decode()).encode()
            if b"LabGym" in files[name]:
                raise InstallError(f"{donor.name} names LabGym in {name} in an unknown way")

    info = f"detectron2-{VERSION}.dist-info"
    files[f"{info}/METADATA"] = _metadata().encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: install_detectron2\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/LICENSE"] = LICENSE.read_bytes()
    record = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items()]
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()

    wheel = donor.with_name(f"detectron2-{VERSION}-py3-none-any.whl")
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return wheel


def install(folder: Path) -> None:
    """Let pip install the wheel of detectron2 that is in a folder, and nothing else with it.

    Raises:
        InstallError: pip refused.
    """
    # By name, not by path: pip would list the temporary file as the package's source.
    options = "--no-deps --no-input --no-index --find-links"
    result = _python(*f"-m pip install {options}".split(), str(folder), f"detectron2=={VERSION}")
    if result.returncode != 0:
        raise InstallError(f"pip could not install detectron2 ({_error_line(result.stderr)})")


def verify() -> None:
    """Import the parts of detectron2 that the project uses in a fresh interpreter.

    Raises:
        InstallError: one of them does not import.
    """
    result = _python("-W", "ignore", "-c", VERIFY)
    if result.returncode != 0:
        raise InstallError(
            f"detectron2 is installed but does not import ({_last_line(result.stderr)}): "
            "run pip install -r requirements.txt with the same Python"
        )


def main() -> None:
    """Install detectron2 unless there is one, and say which one there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    try:
        found = find_detectron2()
        if found is not None:
            check()
            print(f"detectron2 {found} is installed already and stays as it is")
            return
        if importlib.util.find_spec("pip") is None:
            raise InstallError(
                f"{sys.executable} has no pip: run {sys.executable} -m ensurepip, then this again"
            )
        print(f"Installing detectron2 {VERSION} (2 MB to download)")
        with tempfile.TemporaryDirectory() as folder:
            install(build_wheel(download(Path(folder))).parent)
        verify()
        print(f"detectron2 {find_detectron2()} is installed")
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # The folder is one where no detectron2 lies about that Python would import from there.
    with tempfile.TemporaryDirectory() as elsewhere:
        return subprocess.run(
            [sys.executable, *arguments], cwd=elsewhere, capture_output=True, text=True, check=False
        )


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or ["no reason given"])[-1]


def _error_line(output: str) -> str:
    error = re.search(r"^error: *(.*)", output, re.IGNORECASE | re.MULTILINE)
    return error.group(1) if error else _last_line(output)


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _metadata() -> str:
    head = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: detectron2 at upstream commit 864913f0 without its C++ extension,"
        f" from the wheel of {DONOR}",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "Author: Facebook, Inc. and its affiliates",
        "License: Apache-2.0",
        "License-File: LICENSE",
        "Requires-Python: >=3.7",
    ]
    return "\n".join([*head, *(f"Requires-Dist: {name}" for name in REQUIRES), ""])


if __name__ == "__main__":
    main()
