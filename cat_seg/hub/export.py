"""Turning a finished training into a folder to share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cat_seg.checkpoint.checkpointer import last_checkpoint
from cat_seg.checkpoint.fitting import check_finite
from cat_seg.checkpoint.formats import format_of
from cat_seg.checkpoint.reading import read_file, read_weights
from cat_seg.configuration.loading import load_config
from cat_seg.errors import UserError
from cat_seg.evaluation.record import weights_record
from cat_seg.hub.card import results_of
from cat_seg.hub.locating import CONFIG
from cat_seg.hub.pretrained import save_state

FINAL = "model_final.pth"


def export_run(
    run: Path,
    folder: Path,
    *,
    clip: bool = True,
    name: str | None = None,
    license: str | None = None,
) -> Path:
    """Save the model of a finished training in a folder that `cat_seg.from_pretrained` loads.

    Results of its evaluations go into the model card.

    Args:
        run: OUTPUT_DIR of the training.
        folder, clip, name, license: see `cat_seg.hub.pretrained.save_pretrained`.

    Returns:
        The folder written.

    Raises:
        UserError: the training is not finished or its files are damaged; or see
            `cat_seg.hub.pretrained.save_pretrained`.
    """
    for file in (CONFIG, FINAL):
        if not (run / file).is_file():
            hint = "" if last_checkpoint(str(run)) is None else "; finish it with --resume"
            raise UserError(f"{run} is no finished training: it has no {file}{hint}")
    cfg = load_config(str((run / CONFIG).absolute()))
    final = run / FINAL
    _check_finished(run, final, cfg.SOLVER.MAX_ITER)
    tensors = read_weights(final, str(final), cfg.MODEL.WEIGHTS_EMA).tensors
    if format_of(tensors) != "ours":
        raise UserError(f"{final} was not written by a training of this project")
    check_finite(tensors, {entry: entry for entry in tensors})
    return save_state(
        tensors,
        cfg,
        folder,
        clip=clip,
        name=name,
        license=license,
        results=list(_results_files(run, final)),
    )


def _check_finished(run: Path, final: Path, iterations: int) -> None:
    last = last_checkpoint(str(run))
    done = read_file(final, str(final)).get("iteration")
    behind = isinstance(done, int) and done + 1 < iterations
    if behind or (last is not None and last.name != FINAL):
        raise UserError(
            f"{run} is no finished training: it was continued after {FINAL}; "
            "finish it with --resume"
        )


def _results_files(run: Path, final: Path) -> Iterator[Path]:
    """Yield the results of the final weights: of evaluations, and of the training's own end."""
    found = sorted(run.glob("**/inference/*/results.json"))
    record = weights_record(str(final.absolute())) if found else None
    digest = record["sha256"] if record else None
    of_training = run / "inference"
    later = []
    for file in found:
        weights = results_of(file).get("weights")
        if weights is None and of_training in file.parents:
            later.append(file)
        elif isinstance(weights, dict) and weights.get("sha256") == digest:
            yield file
    yield from later
