"""Install detectron2 as a pip-managed package, without a compiler and without GitHub.

detectron2 has no release on PyPI, but the PyPI wheel of labgym 3.1.2 contains its Python files at
upstream commit 864913f0 (2024-01-08) as `LabGym.detectron2`. This tool extracts only those files,
restores their original package name and installs them as a wheel. An existing detectron2 is left
unchanged. docs/install.md explains why and lists the alternatives.

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
# Packages that detectron2 imports. It needs OpenCV as well, but two distributions provide that.
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

# Prints version and folder, or nothing if detectron2 is not installed. A broken one raises.
PROBE = """
from importlib.util import find_spec
found = find_spec("detectron2")
if found is not None and found.origin is not None:
    import detectron2
    print(detectron2.__version__, "in", *detectron2.__path__)
"""
# Prints why the installed detectron2 is too old, or an empty line.
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
    """Failure to install detectron2; the one-line message says why and what to do."""


def find_detectron2() -> str | None:
    """Return version and folder of the detectron2 that this Python imports, or None.

    Raises:
        InstallError: detectron2 is installed but cannot be imported.
    """
    result = _python("-c", PROBE)
    if result.returncode != 0:
        raise InstallError(
            f"detectron2 is installed but cannot be imported ({_last_line(result.stderr)}): "
            "run pip install -r requirements.txt, or pip uninstall detectron2, then try again"
        )
    return result.stdout.strip() or None


def check() -> None:
    """Check that the installed detectron2 is recent enough.

    Raises:
        InstallError: it is too old or cannot be imported.
    """
    result = _python("-W", "ignore", "-c", CHECK, str(ROOT / "cat_seg/utils/compatibility.py"))
    if result.returncode != 0:
        raise InstallError(
            f"detectron2 is installed but cannot be imported ({_last_line(result.stderr)}): "
            "run pip install -r requirements.txt, or pip uninstall detectron2, then try again"
        )
    if problem := result.stdout.strip():
        raise InstallError(problem)


def download(folder: Path) -> Path:
    """Download the donor wheel into a folder with pip, and check its SHA-256.

    Raises:
        InstallError: the file does not exist, the network is unavailable, or the hash differs.
    """
    requirement = folder / "donor.txt"
    requirement.write_text(f"{DONOR} --hash=sha256:{DONOR_SHA256}\n", encoding="utf-8")
    # The donor requires Python < 3.11, but the files taken from it do not.
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
    """Replace `LabGym.detectron2` by the upstream name `detectron2` in Python source."""
    return re.sub(r"\bLabGym\.detectron2\b", "detectron2", source)


def build_wheel(donor: Path) -> Path:
    """Write the donor's detectron2 as a wheel of its own, next to the donor wheel.

    Raises:
        InstallError: the donor is not a wheel that contains detectron2, or renaming is incomplete.
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
        raise InstallError(f"{donor.name} contains no {DONOR_PACKAGE}__init__.py")
    for name in files:
        if name.endswith(".py"):
            files[name] = rename(files[name].decode()).encode()
            if b"LabGym" in files[name]:
                raise InstallError(f"{donor.name} refers to LabGym in {name} in an unexpected way")

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
    """Install the detectron2 wheel in a folder with pip, without dependencies.

    Raises:
        InstallError: pip failed.
    """
    # By name, not by path: pip would record the temporary file as the package's source.
    options = "--no-deps --no-input --no-index --find-links"
    result = _python(*f"-m pip install {options}".split(), str(folder), f"detectron2=={VERSION}")
    if result.returncode != 0:
        raise InstallError(f"pip could not install detectron2 ({_error_line(result.stderr)})")


def verify() -> None:
    """Import the parts of detectron2 that the project uses, in a fresh interpreter.

    Raises:
        InstallError: one of them cannot be imported.
    """
    result = _python("-W", "ignore", "-c", VERIFY)
    if result.returncode != 0:
        raise InstallError(
            f"detectron2 is installed but cannot be imported ({_last_line(result.stderr)}): "
            "run pip install -r requirements.txt with the same Python"
        )


def main() -> None:
    """Install detectron2 unless it is already installed, and print its version."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    try:
        found = find_detectron2()
        if found is not None:
            check()
            print(f"detectron2 {found} is already installed; leaving it unchanged")
            return
        if importlib.util.find_spec("pip") is None:
            raise InstallError(
                f"{sys.executable} has no pip: run {sys.executable} -m ensurepip, then try again"
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
    # Run in an empty folder, so that Python cannot import a detectron2 from the current one.
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
