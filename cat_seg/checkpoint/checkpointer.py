"""Checkpoints that are written atomically and loaded without running code from them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import Tensor, nn

from cat_seg.checkpoint.fitting import is_segmentation_model, load_into, start_from
from cat_seg.checkpoint.reading import KEY, local_file, read_file, read_weights
from cat_seg.checkpoint.without_clip import with_clip
from cat_seg.errors import UserError
from cat_seg.utils.agreement import raise_on_every_rank, require_same_file
from cat_seg.utils.files import PARTIAL, atomic_write
from cat_seg.utils.rng import rng_state

logger = logging.getLogger(__name__)

TAG = "last_checkpoint"


def last_checkpoint(folder: str) -> Path | None:
    """Return the file named in `folder`'s last_checkpoint tag, or None if there is no tag.

    Raises:
        UserError: the file named is missing.
    """
    tag = Path(folder) / TAG
    if not tag.exists():
        return None
    name = tag.read_text(encoding="utf-8").strip()
    file = tag.parent / name
    if not file.is_file():
        raise UserError(
            f"{tag} points to {name!r}, which does not exist; restore it, or remove {tag} to start "
            "over"
        )
    return file


def agreed_checkpoint(folder: str) -> Path | None:
    """Return `last_checkpoint` as rank 0 finds it, in this process's `folder`.

    Every rank must call this. Machines may have no disk in common.

    Raises:
        UserError: on every rank: the file is missing, or some rank has another one.
    """

    def find() -> str | None:
        last = last_checkpoint(folder) if comm.is_main_process() else None
        return None if last is None else os.path.relpath(last, folder)

    name = comm.all_gather(raise_on_every_rank(find))[0]
    if name is None:
        return None
    file = Path(folder, name)
    require_same_file("OUTPUT_DIR", file)
    return file


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer with safe file handling and loading of the published formats.

    `cat_seg.checkpoint.fitting` converts these formats and refuses entries that do not fit.
    """

    # Iteration of the latest checkpoint that this process helped to save.
    saved_iteration: int | None = None

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        averaged: bool = False,
        **kwargs: Any,
    ) -> None:
        """Create a checkpointer for `model`.

        Args:
            model: the model to load into and save from.
            save_dir: where checkpoints are saved and the last one is looked up.
            averaged: MODEL.WEIGHTS_EMA; load the moving average of the weights if a file has both.
            kwargs: detectron2's `save_to_disk`, and the other objects to save, by name.
        """
        super().__init__(model, save_dir, **kwargs)
        self._averaged = averaged

    def save(self, name: str, **kwargs: Any) -> None:
        """Write model, checkpointables, and the random state of every rank to `name`.pth.

        Every rank must call this; rank 0 writes. If the process dies, the file and the
        last_checkpoint tag are each either untouched or fully written.

        Args:
            name: file name without suffix, in the checkpointer's folder.
            kwargs: additional entries such as "iteration"; plain types and tensors only.

        Raises:
            UserError: the file cannot be written.
        """
        rng = comm.gather(rng_state())
        self.saved_iteration = kwargs.get("iteration")
        if not self.save_dir or not self.save_to_disk:
            return
        content = {"model": self.model.state_dict(), "rng": rng, **kwargs}
        for key, part in self.checkpointables.items():
            content[key] = part.state_dict()
        folder = Path(self.save_dir)
        for stale in folder.glob(f"*.pth{PARTIAL}"):  # left by a killed process
            stale.unlink()
        file = folder / f"{name}.pth"
        logger.info("Saving checkpoint to %s", file)
        try:
            with atomic_write(file) as stream:
                torch.save(content, stream)
            self.tag_last_checkpoint(file.name)
        except (OSError, RuntimeError) as error:
            # After a failed write, PyTorch raises a second error while closing its archive.
            reason = error if isinstance(error, OSError) else error.__context__ or error
            raise UserError(
                f"cannot write {file}: {reason}; earlier checkpoints are unchanged, "
                "use --resume to continue from the last one"
            ) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the last_checkpoint file."""
        with atomic_write(Path(self.save_dir) / TAG, "w") as file:
            file.write(last_filename_basename)

    def load(self, path: str, checkpointables: Sequence[str] | None = None) -> dict[str, Any]:
        """Load a model file for inference, in any known format.

        Args:
            path: a file, also relative to the repository root, or a URL that detectron2 fetches;
                "" loads nothing.
            checkpointables: which other objects to load; None loads all.

        Returns:
            The entries of the file that were not used, such as "rng" and "iteration".

        Raises:
            UserError: naming the file that is missing, damaged, unsafe, from another model, or
                whose training state does not fit this run.
        """
        if not path:
            logger.info("MODEL.WEIGHTS is empty; the model keeps its initial weights")
            return {}
        file = local_file(str(path))
        self._load_model_from(file, strict=False)
        keys = list(self.checkpointables) if checkpointables is None else checkpointables
        return self._load_parts(file, keys) if keys else {}

    def start_from(self, path: str) -> None:
        """Load the entries of a model file that fit, to start training, and log them in one line.

        Args:
            path: as in `load`.

        Raises:
            UserError: as in `load`.
        """
        if not path or not is_segmentation_model(self.model):
            self.load(path, checkpointables=[])
            return
        file = local_file(str(path))
        tensors = self._read(file, KEY)
        try:
            start = start_from(self.model, tensors)
        except UserError as error:
            raise UserError(f"{KEY}: {file}: {error}") from error
        logger.info(
            "%s %s (format: %s): loaded: %s; newly initialized: %s; not used: %s",
            KEY,
            file,
            start.format,
            *(
                ", ".join(parts) or "nothing"
                for parts in (start.loaded, start.fresh, start.dropped)
            ),
        )

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the last checkpoint, or start from `path` if there is none or not `resume`.

        Every rank must call this; see `agreed_checkpoint`. Returns and raises like `load`. When
        resuming, every entry of the checkpoint must fit.
        """
        last = agreed_checkpoint(self.save_dir) if resume else None
        if last is None:
            self.start_from(path)
            return {}
        self._load_model_from(last, strict=True, key=TAG)
        return self._load_parts(last, list(self.checkpointables))

    def _load_model_from(self, file: Path, strict: bool, key: str = KEY) -> None:
        tensors = self._read(file, key)
        try:
            loaded = load_into(self.model, tensors, strict)
        except UserError as error:
            raise UserError(f"{key}: {file}: {error}") from error
        logger.info(
            "loaded %d entries from %s (format: %s); not in the model: %s; not in the file: %s",
            len(tensors) - len(loaded.unexpected),
            file,
            loaded.format,
            _shortened(loaded.unexpected),
            _shortened(loaded.missing),
        )

    def _read(self, file: Path, key: str) -> dict[str, Tensor]:
        """Read the weights in a file, averaged or not as configured, and log which were loaded."""
        weights = read_weights(file, key, self._averaged and key == KEY)
        if weights.averaged or weights.both:
            kind = "the moving average (EMA) of the weights"
            logger.info(
                "%s: using %s (%s)",
                file,
                kind if weights.averaged else f"the raw weights, not {kind}",
                "set by MODEL.WEIGHTS_EMA" if weights.both else "the file has no others",
            )
        elif self._averaged and key == KEY:
            logger.warning(
                "MODEL.WEIGHTS_EMA is True, but %s has no moving average (EMA); using the raw "
                "weights",
                file,
            )
        try:
            return with_clip(weights.tensors, file, self.model)
        except UserError as error:
            raise UserError(f"{key}: {file}: {error}") from error

    def _load_parts(self, file: Path, keys: Sequence[str]) -> dict[str, Any]:
        content = read_file(file)
        content.pop("model", None)
        for key in keys:
            if key not in content:
                raise UserError(
                    f"{file} has no {key} state to resume from; "
                    "drop --resume and set MODEL.WEIGHTS to this file"
                )
            try:
                self.checkpointables[key].load_state_dict(content.pop(key))
            except (KeyError, RuntimeError, ValueError) as error:
                raise UserError(
                    f"{file}: its {key} state does not fit this run ({error}); "
                    "resume with the config it was saved with"
                ) from error
        return content


def _shortened(names: Sequence[str], shown: int = 3) -> str:
    if len(names) <= shown:
        return ", ".join(names) or "none"
    return f"{len(names)} ({', '.join(names[:shown])}, ...)"
