"""torch.compile for the parts of a model that benefit from it."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from cat_seg.errors import UserError

if TYPE_CHECKING:
    from cat_seg.cat_seg_model import CATSeg


def compile_aggregator(model: CATSeg, backend: str = "inductor") -> None:
    """Compile the aggregator of a model in place, so that parameters keep their names.

    The aggregator does most of the small element-wise work, which compilation fuses, and it is a
    single graph. Its first call compiles it, which takes minutes. When the number of classes or
    images first changes, it is compiled once more, this time for any number.

    Args:
        model: has `sem_seg_head.aggregator`.
        backend: the backend of torch.compile.

    Raises:
        UserError: the backend is inductor, and the compiler or headers it needs are missing.
    """
    if backend == "inductor":
        check_compiler(next(model.parameters()).device.type)
    model.sem_seg_head.aggregator.compile(backend=backend)


def check_compiler(device_type: str) -> None:
    """Fail early if torch.compile would fail at the first step.

    Args:
        device_type: "cuda", where Triton needs a C compiler, or "cpu", where the kernels are C++.

    Raises:
        UserError: there is no compiler, or Python's headers are missing.
    """
    variable, names = ("CC", ("gcc", "clang")) if device_type == "cuda" else ("CXX", ("g++",))
    candidates = (os.environ[variable],) if os.environ.get(variable) else names
    advice = "or set MODEL.COMPILE to False"
    if not any(map(shutil.which, candidates)):
        raise UserError(
            f"MODEL.COMPILE is True, but the compiler {' or '.join(candidates)} was not found; "
            f"install it (on Debian and Ubuntu: apt install g++), set {variable}, {advice}"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise UserError(
            f"MODEL.COMPILE is True, but {header} is missing; install Python's headers (on Debian "
            f"and Ubuntu: apt install python3-dev), {advice}"
        )
