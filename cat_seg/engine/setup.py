"""The start of a run: arguments, machine, output folder and logging."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from cat_seg.checkpoint.checkpointer import TAG, agreed_checkpoint, last_checkpoint
from cat_seg.checkpoint.reading import KEY, local_file
from cat_seg.configuration.checks import check_values
from cat_seg.configuration.precision import set_determinism, set_float32_precision
from cat_seg.data.build import images_per_process
from cat_seg.engine.ranks import Place
from cat_seg.engine.resuming import resumed_config, saved_config
from cat_seg.errors import UserError
from cat_seg.utils.agreement import raise_on_every_rank, require_same_file
from cat_seg.utils.files import atomic_write
from cat_seg.utils.paths import resolve

logger = logging.getLogger(__name__)


def argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Return detectron2's argument parser; processes on one machine use any free port."""
    parser = default_argument_parser(epilog)
    parser.set_defaults(dist_url="auto")
    return parser


def check_machine(cfg: CfgNode, args: argparse.Namespace, place: Place | None = None) -> None:
    """Refuse a run that this machine or this number of processes cannot do.

    Args:
        cfg: the complete config, whose values are checked first.
        args: the arguments parsed by `argument_parser`.
        place: this process's place if torchrun or srun started it. `args` then says nothing of the
            number of processes.

    Raises:
        UserError: the run is refused; the message names the key or argument.
    """
    if args.num_gpus < 1 or args.num_machines < 1:
        raise UserError("--num-gpus and --num-machines must be 1 or more")
    if place is None and args.num_machines > 1 and args.dist_url == "auto":
        raise UserError("--num-machines needs --dist-url tcp://ADDRESS-OF-MACHINE-0:PORT")
    check_values(cfg)
    if place is None:
        check_device(cfg, args.num_gpus)
        processes = args.num_gpus * args.num_machines
    else:
        check_device(cfg)
        if torch.device(cfg.MODEL.DEVICE).type == "cuda":
            place.gpu()
        processes = place.world_size
    if not args.eval_only:
        images_per_process(cfg, processes)


def check_device(cfg: CfgNode, gpus: int = 1, kinds: Sequence[str] = ("cuda", "cpu")) -> None:
    """Refuse a MODEL.DEVICE that this machine does not have.

    Args:
        cfg: reads MODEL.DEVICE.
        gpus: number of GPUs needed if it is cuda.
        kinds: the kinds of device that the caller supports, of cuda, mps and cpu.

    Raises:
        UserError: the device is refused; the message names the key or argument.
    """
    try:
        kind = torch.device(cfg.MODEL.DEVICE).type
    except RuntimeError:
        kind = None
    if kind not in kinds:
        known = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        raise UserError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; set it to {known}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("MODEL.DEVICE is mps, but PyTorch finds no Apple GPU here; set it to cpu")
    if kind != "cuda":
        return
    if not torch.cuda.is_available():
        raise UserError(
            "MODEL.DEVICE is cuda, but PyTorch finds no GPU; "
            "add MODEL.DEVICE cpu (after --opts in the demo) to run on the CPU"
        )
    found = torch.cuda.device_count()
    index = torch.device(cfg.MODEL.DEVICE).index
    if index is not None and index >= found:
        raise UserError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE}, but this machine has {found} GPUs")
    if gpus > found:
        raise UserError(f"--num-gpus {gpus}: this machine has {found}; use at most {found}")


def setup(cfg: CfgNode, args: argparse.Namespace) -> CfgNode:
    """Set up a run in this process: output folder, log, saved config, random seeds, precision.

    Args:
        cfg: the config from `load_config`.
        args: the arguments parsed by `argument_parser`.

    Returns:
        The config, frozen. With --resume and a last checkpoint in OUTPUT_DIR, MODEL.WEIGHTS is
        that file, so that the model does not look for CLIP's weights elsewhere. In training, the
        keys that a run cannot change then come from the checkpoint; see
        `cat_seg.engine.resuming`. These keys are also in the saved config.yaml.

    Raises:
        UserError: OUTPUT_DIR cannot be written, or its last checkpoint is missing. On every rank,
            if a rank has another file than rank 0 to resume from or as MODEL.WEIGHTS.
    """
    if args.config_file:
        args.config_file = str(resolve(args.config_file))
    last = agreed_checkpoint(cfg.OUTPUT_DIR) if args.resume else None
    if last is None:
        _require_same_weights(cfg)
    saved = {} if last is None or args.eval_only else saved_config(last)
    resumed = resumed_config(cfg, saved)
    cfg = resumed.cfg
    try:
        default_setup(cfg, args)
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="cat_seg")
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {cfg.OUTPUT_DIR} cannot be written: {error}") from error
    for line in filter(None, (resumed.kept, resumed.new)):
        logger.warning("%s", line)
    set_float32_precision(cfg)
    set_determinism(cfg)  # after default_setup, which sets cuDNN's benchmark
    if last is not None:
        cfg.MODEL.WEIGHTS = str(last)
    cfg.freeze()
    return cfg


def _require_same_weights(cfg: CfgNode) -> None:
    if cfg.MODEL.WEIGHTS and comm.get_world_size() > 1:
        file = raise_on_every_rank(lambda: local_file(cfg.MODEL.WEIGHTS))
        require_same_file(KEY, file)


@contextmanager
def config_restored_on_error(cfg: CfgNode, args: argparse.Namespace) -> Iterator[None]:
    """Restore config.yaml in OUTPUT_DIR if a run fails before it starts.

    The folder may hold another model's run. Wrap `setup` and everything else that comes before
    training. If an error names the checkpoint to resume from, the message also says how to go on
    without that checkpoint.

    Args:
        cfg: the config from `load_config`.
        args: the arguments parsed by `argument_parser`.
    """
    file = Path(cfg.OUTPUT_DIR, "config.yaml")
    before = file.read_bytes() if comm.is_main_process() and file.is_file() else None
    try:
        yield
    except BaseException as error:  # including Ctrl-C
        if before is not None and file.read_bytes() != before:
            with atomic_write(file) as stream:
                stream.write(before)
        if not isinstance(error, UserError):
            raise
        last = last_checkpoint(cfg.OUTPUT_DIR) if args.resume else None
        if last is None or str(last) not in str(error):
            raise
        raise UserError(
            f"{error} (this is the checkpoint to resume from: use another OUTPUT_DIR to start "
            f"over, or write the name of an earlier checkpoint into {last.with_name(TAG)})"
        ) from error
