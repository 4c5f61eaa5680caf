"""Data loaders whose samples depend only on the seed and the position in the stream."""

from __future__ import annotations

import itertools
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.build import trivial_batch_collator
from detectron2.data.common import DatasetFromList
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from cat_seg.data.mapper import InferenceMapper, TrainMapper
from cat_seg.data.records import Record, agreed_records, check_test_dataset, check_train_dataset
from cat_seg.errors import UserError
from cat_seg.utils.processes import WorkerContext

# Both names select the same mapper. The published configs use the second.
TRAIN_MAPPERS = {"semantic": TrainMapper, "mask_former_semantic": TrainMapper}


def build_train_loader(cfg: CfgNode, seed: int, start: int = 0) -> DataLoader:
    """Build this process's infinite loader of training batches.

    The datasets in DATASETS.TRAIN are concatenated and reshuffled for every epoch. Sample p of the
    global stream is drawn and augmented from (seed, p) alone. The stream is therefore the same for
    any DATALOADER.NUM_WORKERS, for any number of processes (their batches, concatenated in rank
    order, equal the batch of a single process), and after resuming at `start`.

    Args:
        cfg: reads DATASETS.TRAIN, DATALOADER.NUM_WORKERS, INPUT.*, MODEL.DEVICE, IMS_PER_BATCH and
            ACCUMULATION_STEPS of SOLVER, and TRAIN_CLASS_JSON and IGNORE_VALUE of
            MODEL.SEM_SEG_HEAD.
        seed: 0 or more.
        start: number of global batches (of SOLVER.IMS_PER_BATCH) already drawn.

    Returns:
        A loader of lists of SOLVER.IMS_PER_BATCH / world size samples, in the format of
        `cat_seg.data.mapper.TrainMapper`.

    Raises:
        UserError: a dataset is unknown, missing or does not fit TRAIN_CLASS_JSON, or the batch
            size or the number of workers is invalid. While iterating: a file is unreadable or
            invalid.
    """
    local, total = images_per_process(cfg, comm.get_world_size()), cfg.SOLVER.IMS_PER_BATCH
    return _build_loader(
        cfg,
        _training_stream(cfg, seed),
        batch_sampler=RankBatches(start * total + comm.get_rank() * local, local, total),
    )


def training_samples(cfg: CfgNode, seed: int, count: int) -> list[Record]:
    """Return the first samples of the stream of `build_train_loader`, the same in all processes.

    Raises:
        UserError: as `build_train_loader`, or a file is unreadable or invalid.
    """
    stream = _training_stream(cfg, seed)
    samples = []
    for position in range(count):
        sample = stream[position]
        if isinstance(sample, UserError):
            raise sample
        samples.append(sample)
    return samples


def _training_stream(cfg: CfgNode, seed: int) -> _MappedRecords:
    if cfg.INPUT.DATASET_MAPPER_NAME not in TRAIN_MAPPERS:
        raise UserError(
            f"INPUT.DATASET_MAPPER_NAME is {cfg.INPUT.DATASET_MAPPER_NAME!r}; "
            f"set it to one of {', '.join(TRAIN_MAPPERS)}"
        )
    if not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty; name the datasets to train on")
    for name in cfg.DATASETS.TRAIN:
        check_train_dataset(cfg, name)
    records = agreed_records(cfg.DATASETS.TRAIN)
    mapper = TRAIN_MAPPERS[cfg.INPUT.DATASET_MAPPER_NAME](cfg)
    return _MappedRecords(records, EndlessShuffle(len(records), seed), mapper, seed)


def images_per_process(cfg: CfgNode, processes: int) -> int:
    """Return how many training images each process draws per optimizer step.

    Args:
        cfg: reads SOLVER.IMS_PER_BATCH and SOLVER.ACCUMULATION_STEPS.
        processes: number of processes on all machines (world size).

    Raises:
        UserError: the batch size is not divisible by processes x accumulation steps.
    """
    total, steps = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS
    if steps < 1:
        raise UserError(f"SOLVER.ACCUMULATION_STEPS is {steps}; set it to 1 or more")
    if total < 1 or total % (processes * steps):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {total}; set it to a multiple of {processes * steps}, the "
            f"number of processes ({processes}) times SOLVER.ACCUMULATION_STEPS ({steps})"
        )
    return total // processes


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Build the loader for this process's share of a test dataset, in order.

    Args:
        cfg: reads DATALOADER.NUM_WORKERS, INPUT.*, MODEL.DEVICE and TEST.IMS_PER_BATCH.
        dataset_name: a registered dataset.

    Returns:
        A loader of lists of TEST.IMS_PER_BATCH samples, in the format of
        `cat_seg.data.mapper.InferenceMapper`. The last list may be shorter. An unreadable image
        yields {"unreadable": message that names the file}.

    Raises:
        UserError: the dataset is unknown or missing, or the batch size, an image size or the
            number of workers is invalid.
    """
    if cfg.TEST.IMS_PER_BATCH < 1:
        raise UserError(f"TEST.IMS_PER_BATCH is {cfg.TEST.IMS_PER_BATCH}; set it to 1 or more")
    check_test_dataset(dataset_name)
    records = agreed_records([dataset_name])
    return _build_loader(
        cfg,
        _MappedRecords(records, range(len(records)), InferenceMapper(cfg), seed=0),
        kind=_ReportingLoader,
        sampler=InferenceSampler(len(records)),
        batch_size=cfg.TEST.IMS_PER_BATCH,
    )


class EndlessShuffle:
    """An infinite stream of the indices 0 to size - 1, reshuffled for every epoch."""

    def __init__(self, size: int, seed: int) -> None:
        """Shuffle `size` indices; the order depends only on `seed` (0 or more)."""
        self.size = size
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> int:
        """Return the index at a position (0 or more) of the stream."""
        epoch, offset = divmod(position, self.size)
        if epoch != self._epoch:
            entropy = np.random.SeedSequence(self.seed, spawn_key=(_ORDER, epoch))
            self._order = np.random.default_rng(entropy).permutation(self.size)
            self._epoch = epoch
        return int(self._order[offset])


class RankBatches(Sampler[list[int]]):
    """Batch sampler for one process: `local` of every `total` positions, starting at `first`."""

    def __init__(self, first: int, local: int, total: int) -> None:
        """Yield batches of `local` positions, starting at `first`, `first + total`, and so on."""
        self.first = first
        self.local = local
        self.total = total

    def __iter__(self) -> Iterator[list[int]]:
        for position in itertools.count(self.first, self.total):
            yield list(range(position, position + self.local))


# First element of the spawn key: shuffling and augmentation must not share random numbers.
_ORDER, _AUGMENTATION = 0, 1


@contextmanager
def fixed_randomness(seed: int, position: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch (CPU), and restore them on exit.

    Args:
        seed: seed of the run, 0 or more.
        position: position of the sample in the stream.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    entropy = np.random.SeedSequence(seed, spawn_key=(_AUGMENTATION, position))
    words = entropy.generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(words[1:2].view(np.uint32))
    # torch.manual_seed would also seed the GPUs.
    torch.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class _MappedRecords(Dataset):
    """Samples by stream position. A sample that failed is replaced by a UserError.

    Any other exception is converted to a UserError that names the image, so that it also leaves a
    worker process as one line.
    """

    def __init__(
        self,
        records: list[Record],
        order: EndlessShuffle | range,
        mapper: Callable[[Record], Record],
        seed: int,
    ) -> None:
        # Serialized into one buffer, which worker processes share instead of copying.
        self.records = DatasetFromList(records)
        self.order = order
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, position: int) -> Record | UserError:
        record = self.records[self.order[position]]
        with fixed_randomness(self.seed, position):
            try:
                return self.mapper(record)
            except UserError as error:
                return error
            except Exception as error:
                return _unexpected(record, error)


def _unexpected(record: Record, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    where = traceback.extract_tb(error.__traceback__)[-1]
    return UserError(
        f"image {record['file_name']} cannot be preprocessed: {reason} "
        f"({Path(where.filename).name}, line {where.lineno}); repair or remove it"
    )


class _RaisingLoader(DataLoader):
    """A DataLoader that raises the errors found among its samples.

    If the worker raised them, the message in the main process would be the worker's traceback
    instead of one line.
    """

    def __iter__(self) -> Iterator[list[Record]]:  # type: ignore[override]  # not PyTorch's type
        for batch in super().__iter__():
            for sample in batch:
                if isinstance(sample, UserError):
                    raise sample
            yield batch


class _ReportingLoader(DataLoader):
    """A DataLoader that yields {"unreadable": message} for each sample that failed."""

    def __iter__(self) -> Iterator[list[Record]]:  # type: ignore[override]  # not PyTorch's type
        for batch in super().__iter__():
            yield [
                {"unreadable": str(sample)} if isinstance(sample, UserError) else sample
                for sample in batch
            ]


def _build_loader(
    cfg: CfgNode, dataset: Dataset, kind: type[DataLoader] = _RaisingLoader, **sampling: Any
) -> DataLoader:
    if cfg.DATALOADER.NUM_WORKERS < 0:
        raise UserError(
            f"DATALOADER.NUM_WORKERS is {cfg.DATALOADER.NUM_WORKERS}; set it to 0 or more"
        )
    if cfg.DATALOADER.NUM_WORKERS:
        # OpenCV threads on every core would slow down the other workers. Set before forking: a
        # forked worker could deadlock.
        cv2.setNumThreads(0)
    return kind(
        dataset,
        **sampling,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        multiprocessing_context=WorkerContext() if cfg.DATALOADER.NUM_WORKERS else None,
        collate_fn=trivial_batch_collator,
        pin_memory=cfg.MODEL.DEVICE.startswith("cuda"),
        # By default, DataLoader draws from the global generator, which is reserved for training.
        generator=torch.Generator(),
    )
