"""Check that the installed detectron2 is recent enough.

This module imports nothing from the project, so that tools/install_detectron2.py can run it alone.
"""

from __future__ import annotations

import importlib.util
import inspect

REMEDY = (
    "run `pip uninstall detectron2`, then `python tools/install_detectron2.py` "
    "(docs/install.md has other ways)"
)


def detectron2_problem() -> str | None:
    """Return one line saying why the installed detectron2 is unusable, or None if it is usable.

    Release 0.6 (November 2021) is too old: it fails to import with Pillow 10, does not save the
    optimizer state, cannot resume in the middle of the data, and supports multiple processes only
    on GPUs. Later versions also call themselves 0.6, so this checks for the features that the
    project uses instead of the version number.
    """
    import detectron2

    try:
        missing = _missing()
    except AttributeError as error:  # e.g. PIL.Image.LINEAR, removed in Pillow 10
        missing = str(error)
    if missing is None:
        return None
    where = ", ".join(detectron2.__path__)
    return f"detectron2 {detectron2.__version__} in {where} is too old ({missing}); {REMEDY}"


def require_detectron2() -> None:
    """Raise ImportError with a one-line message if detectron2 is missing or too old."""
    if importlib.util.find_spec("detectron2") is None:
        raise ImportError("detectron2 is not installed; run `python tools/install_detectron2.py`")
    if problem := detectron2_problem():
        raise ImportError(problem)


def _missing() -> str | None:
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultTrainer, SimpleTrainer, TrainerBase
    from detectron2.utils import comm
    from detectron2.utils.events import EventStorage

    interface = {
        "SimpleTrainer.reset_data_loader": hasattr(SimpleTrainer, "reset_data_loader"),
        "TrainerBase.after_backward": hasattr(TrainerBase, "after_backward"),
        "the trainer's state in checkpoints": "state_dict" in vars(DefaultTrainer),
        "put_scalar(cur_iter)": "cur_iter" in inspect.signature(EventStorage.put_scalar).parameters,
        "processes on the CPU": hasattr(comm, "create_local_process_group"),
        "SOLVER.BASE_LR_END": "BASE_LR_END" in get_cfg().SOLVER,
        "SOLVER.NUM_DECAYS": "NUM_DECAYS" in get_cfg().SOLVER,
    }
    lacking = [name for name, there in interface.items() if not there]
    return f"it lacks {', '.join(lacking)}" if lacking else None
