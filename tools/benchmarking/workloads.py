"""The model steps that the benchmark measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from cat_seg.checkpoint import Checkpointer
from cat_seg.configuration.precision import amp_dtype, set_float32_precision
from cat_seg.data.build import images_per_process
from cat_seg.engine import Trainer
from cat_seg.engine.step import micro_batches
from tools.benchmarking.options import IMAGE_SIZES, INFERENCE, Options
from tools.benchmarking.stages import Trace
from tools.benchmarking.timing import APART

FORWARD, BACKWARD = "forward", "backward"
BLOCK = 16  # pixels; side of each square of one label


class Workload:
    """Model with inputs; calling it runs one step and reports its phases to the trace."""

    def __init__(self, cfg: CfgNode, options: Options) -> None:
        """Build the model and its inputs.

        Raises:
            UserError: the config or the weights cannot be used.
        """
        images_per_process(cfg, processes=1)  # rejects micro-batches that do not fill the batch
        torch.manual_seed(0)
        self.mode = options.mode
        self._trains = options.mode in ("train", "ddp", "count")
        self.model: nn.Module = Trainer.build_model(cfg).train(
            self._trains or options.mode == "text"
        )
        Checkpointer(self.model).load(cfg.MODEL.WEIGHTS)
        self.clip = self.model.sem_seg_head.clip
        size = options.image_size or IMAGE_SIZES.get(self.mode) or self.clip.input_size
        classes = len(self.model.vocabulary)
        self.inputs = random_batch(
            options.batch, size, classes, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        )
        self.described = {
            "classes": classes,
            "aggregated": min(classes, self.model.sem_seg_head.class_limit),
            "batch": options.batch,
            "image_size": list(size),
        }
        self._accumulation = cfg.SOLVER.ACCUMULATION_STEPS
        section = "TEST" if options.mode in INFERENCE else "SOLVER"
        device, dtype = self.model.device.type, amp_dtype(cfg, section)
        self.dtype = dtype or torch.float32
        self._autocast = torch.autocast(device, dtype=dtype, enabled=dtype is not None)
        self._scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
        self._optimizer = None
        if self._trains:
            self._optimizer = Trainer.build_optimizer(cfg, self.model)

    def __call__(self, trace: Trace) -> None:
        """Run one step."""
        if self._trains:
            self._train(trace)
        elif self.mode == "text":
            self._encode_text(trace)
        else:
            with torch.no_grad():
                trace.begin(FORWARD)
                self.model(self.inputs)

    def _train(self, trace: Trace) -> None:
        self._optimizer.zero_grad()
        trace.begin(FORWARD)  # work that the micro-batches share
        steps = self._accumulation
        for part in micro_batches(self.model, self.inputs, steps, self._autocast):
            trace.begin(FORWARD)
            with self._autocast:
                loss = sum(self.model(part).values()) / steps
            trace.begin(BACKWARD)
            self._scaler.scale(loss).backward()
        trace.begin(APART)
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _encode_text(self, trace: Trace) -> None:
        self.model.zero_grad()
        trace.begin(FORWARD)
        with self._autocast:
            features = self.clip.embed_text(self.model.vocabulary)
        if features.requires_grad:
            trace.begin(BACKWARD)
            features.sum().backward()


def random_batch(
    number: int, size: Sequence[int], classes: int, ignored: int
) -> list[dict[str, Tensor]]:
    """Return uint8 noise images (3, *size) with blocks of random labels, 10% of them ignored."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    blocks = (-(-height // BLOCK), -(-width // BLOCK))

    def sample() -> dict[str, Tensor]:
        image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
        labels = torch.randint(classes, blocks, generator=generator)
        labels[torch.rand(blocks, generator=generator) < 0.1] = ignored
        labels = labels.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        return {"image": image, "sem_seg": labels[:height, :width].contiguous()}

    return [sample() for _ in range(number)]


@contextmanager
def machine_settings(options: Options, cfg: CfgNode) -> Iterator[None]:
    """Set the requested threads and CUDA float32 precision, and restore them afterward."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    torch.set_num_threads(options.threads or threads)
    set_float32_precision(cfg)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = cudnn
