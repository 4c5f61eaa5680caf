"""Break down the time or arithmetic of a step by model stage, forward and backward."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, NamedTuple

from torch import Tensor, nn

OTHER = "other"

# The stages of a model: stage name and module path; the first matching path counts. A stage
# excludes the stages nested inside its modules. {} is replaced by what matches * in the path.
MODULES = (
    ("adapters", "sem_seg_head.clip.adapter"),
    ("text tower", "sem_seg_head.clip.text"),
    ("image tower", "sem_seg_head.clip.image"),
    ("guidance", "sem_seg_head.upsample*"),
    ("guidance", "sem_seg_head.aggregator.image_guidance"),
    ("guidance", "sem_seg_head.aggregator.text_guidance"),
    ("guidance", "sem_seg_head.aggregator.decoder_guidance.*"),
    ("AFR", "afr"),
    ("cost volume", "sem_seg_head"),
    ("cost embedding", "sem_seg_head.aggregator.cost_embedding"),
    ("layer {}: spatial", "sem_seg_head.aggregator.layers.*.spatial"),
    ("layer {}: classes", "sem_seg_head.aggregator.layers.*.classes"),
    ("decoder 1", "sem_seg_head.aggregator.decoder1"),
    ("decoder 2", "sem_seg_head.aggregator.decoder2"),
    ("output convolution", "sem_seg_head.aggregator.head"),
    ("aggregator, rest", "sem_seg_head.aggregator"),
    ("HPA", "hpa"),
)
# Stages that are functions: stage name, module, and the function's name in that module.
FUNCTIONS = (
    ("loss", "cat_seg.cat_seg_model", "sem_seg_loss"),
    ("windows", "cat_seg.cat_seg_model", "sliding_window"),
    ("answer size", "cat_seg.cat_seg_model", "restore"),
)


class Part(NamedTuple):
    """One part of a step: a stage within a phase."""

    phase: str
    stage: str


class Trace:
    """Clock readings at every change of phase or stage within a step.

    Args:
        read: reads the clock, which gives seconds, CUDA events or operations counted so far.
        difference: amount between two readings.
    """

    def __init__(self, read: Callable[[], Any], difference: Callable[[Any, Any], float]) -> None:
        self.stage = OTHER
        self._phase = ""
        self._read = read
        self._difference = difference
        self._marks: list[tuple[Part | None, Any]] = []

    def begin(self, phase: str) -> None:
        """Enter a phase, outside any stage."""
        self._phase, self.stage = phase, OTHER
        self._marks.append((Part(phase, OTHER), self._read()))

    def enter(self, stage: str) -> str:
        """Enter a stage and return the previous one."""
        left = self.stage
        if stage != left:
            self.stage = stage
            self._marks.append((Part(self._phase, stage), self._read()))
        return left

    def end(self) -> None:
        """End the last phase."""
        self._marks.append((None, self._read()))

    def spent(self) -> dict[Part, float]:
        """Return the amount per part; they sum to the amount from the first `begin` to `end`."""
        total: dict[Part, float] = defaultdict(float)
        for (part, start), (_, stop) in zip(self._marks, self._marks[1:], strict=False):
            if part is not None:
                total[part] += self._difference(start, stop)
        return dict(total)


@contextmanager
def observed(model: nn.Module, trace: Trace) -> Iterator[None]:
    """Report to `trace` which stage runs, in forward and backward passes within this context.

    Nodes of the autograd graph belong to the stage that created them. Recomputation in the backward
    pass (activation checkpointing) counts as backward.

    Raises:
        AttributeError: a function in FUNCTIONS does not exist; the model is left as it was.
    """
    nodes = _Nodes(trace)
    with ExitStack() as undo:
        for name, module in model.named_modules():
            stage = stage_of(name)
            if stage is not None:
                for handle in _hook(module, stage, trace, nodes):
                    undo.callback(handle.remove)
        for stage, path, function in FUNCTIONS:
            module = import_module(path)
            original = getattr(module, function)  # fails if the function was renamed or moved
            undo.callback(setattr, module, function, original)
            setattr(module, function, _wrapped(original, stage, trace, nodes))
        undo.callback(nodes.release)
        yield


def stage_of(module_name: str) -> str | None:
    """Return the stage of the module of that name, or None if it is not a stage."""
    for stage, path in MODULES:
        match = re.fullmatch(re.escape(path).replace(r"\*", "([^.]*)"), module_name)
        if match:
            return stage.format(*match.groups())
    return None


class _Nodes:
    """Autograd nodes whose stage is known; each reports its stage when it runs."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._known: set[Any] = set()

    def claim(self, values: Any, stage: str) -> None:
        """Assign to `stage` all unclaimed nodes that produced the tensors in `values`."""
        found = [tensor.grad_fn for tensor in _tensors(values)]
        while found:
            node = found.pop()
            if node is None or node in self._known:
                continue
            self._known.add(node)
            node.register_prehook(lambda _: self._run(stage))
            found.extend(source for source, _ in node.next_functions)

    def release(self) -> None:
        """Drop the graph, which would otherwise stay alive: its hooks refer to this object."""
        self._known.clear()

    def _run(self, stage: str) -> None:
        self._trace.enter(stage)


def _hook(module: nn.Module, stage: str, trace: Trace, nodes: _Nodes) -> Iterator[Any]:
    left: list[str] = []

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        nodes.claim((args, kwargs), trace.stage)
        left.append(trace.enter(stage))

    def after(module: nn.Module, args: Any, result: Any) -> None:
        nodes.claim(result, stage)
        trace.enter(left.pop())

    yield module.register_forward_pre_hook(before, with_kwargs=True)
    # always_call: checkpointing stops a recomputation by an exception once it has all it needs.
    yield module.register_forward_hook(after, always_call=True)


def _wrapped(function: Callable, stage: str, trace: Trace, nodes: _Nodes) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        nodes.claim((args, kwargs), trace.stage)
        left = trace.enter(stage)
        try:
            result = function(*args, **kwargs)
            nodes.claim(result, stage)
            return result
        finally:
            trace.enter(left)

    return call


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
