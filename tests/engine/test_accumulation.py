"""A step in micro-batches is the step of the joint batch, in one process and in several."""

from __future__ import annotations

from itertools import chain, repeat

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cat_seg.engine import Trainer
from cat_seg.engine.step import StepTrainer
from tests.tiny import batch, tiny_model

RANKS, IMAGES = 2, 8
FINE_TUNING = "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE"
AFR = (
    *("MODEL.META_ARCHITECTURE", "EnhancedCATSeg", "MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4),
    *("MODEL.HYPERSPHERICAL.USE_HPA", False),
)
CASES = {
    "CAT-Seg": (FINE_TUNING, "attention"),
    "H-CLIP": (FINE_TUNING, "oft_both"),
    "AFR": (*AFR, FINE_TUNING, "oft_both"),
    "HPA": (*AFR, "MODEL.HYPERSPHERICAL.USE_HPA", True, FINE_TUNING, "oft_both"),
    "HPA with separation": (
        *(*AFR, "MODEL.HYPERSPHERICAL.USE_HPA", True, FINE_TUNING, "attention"),
        *("MODEL.HYPERSPHERICAL.HPA_SEPARATION_WEIGHT", 0.5),
    ),
}
# What several processes do takes longer to try.
RANK_CASES = ("H-CLIP", "HPA")
# In float64, since rounding decides on which side of 0 some ReLUs begin: 1e-3 in float32.
TOLERANCE = 1e-9
HPA_TOLERANCE = 1e-5  # it computes in float32


def accumulated_batch() -> list[dict]:
    """Inputs of a step; the micro-batches hold unequal numbers of labeled pixels."""
    inputs = batch(*[(64, 64)] * IMAGES)
    inputs[0]["sem_seg"][16:] = 255
    inputs[1]["sem_seg"][:] = 255
    return inputs


def double_model(case: str) -> nn.Module:
    """The tiny model of a case in float64."""
    model = tiny_model(*CASES[case]).double()
    if getattr(model, "hpa", None):
        model.hpa.float()  # what it computes in
    return model


def tolerance_of(case: str) -> float:
    return HPA_TOLERANCE if "HPA" in case else TOLERANCE


def step(model: nn.Module, inputs: list[dict], steps: int, **arguments) -> dict:
    """Take one step: what was logged, the gradients, and the weights after it, by name."""
    plain = getattr(model, "module", model)
    trained = {name: p for name, p in plain.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    loader = repeat(inputs)
    trainer = StepTrainer(
        model, loader, optimizer, device_type="cpu", accumulation_steps=steps, **arguments
    )
    with EventStorage() as storage:
        trainer.run_step()
    return {
        "logged": {name: v for name, (v, _) in storage.latest().items() if "loss" in name},
        "gradients": {name: p.grad for name, p in trained.items()},
        "weights": {name: p.detach() for name, p in trained.items()},
    }


def assert_same(found: dict, expected: dict, tolerance: float) -> None:
    """Compare what `step` returned: norms of differences relative to those of the values.

    A value of rounding noise alone, as the gradient of a key's bias is, has no norm to speak of.
    """
    # The segmentation loss is float32 in any case.
    assert found["logged"] == pytest.approx(expected["logged"], rel=max(tolerance, 1e-6))
    for part in ("gradients", "weights"):
        assert found[part].keys() == expected[part].keys()
        least = 1e-3 * torch.stack([value.norm() for value in expected[part].values()]).norm()
        for name, value in expected[part].items():
            off = (found[part][name] - value).norm() / value.norm().clamp(min=least)
            assert off < tolerance, f"{part} of {name}: off by {off:.1e} of its norm"


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_give_the_step_of_the_joint_batch(case):
    inputs = accumulated_batch()[:4]
    expected = step(double_model(case), inputs, 1)
    assert all(gradient.norm() > 0 for gradient in expected["gradients"].values())
    for steps in (2, 4):
        assert_same(step(double_model(case), inputs, steps), expected, tolerance_of(case))


def test_micro_batches_share_one_encoding_of_the_classes():
    model = tiny_model(*CASES["HPA"])
    runs = []

    def count(_, __, features):
        runs.append("forward")
        if features.requires_grad:
            features.register_hook(lambda _: runs.append("backward"))

    model.sem_seg_head.clip.text.register_forward_hook(count)
    step(model, accumulated_batch()[:4], 4)
    assert runs == ["forward", "backward"]
    with torch.no_grad():
        model.eval()(accumulated_batch()[:1])  # after it each forward pass has features of its own
    assert runs == ["forward", "backward", "forward"]


def test_a_scaled_loss_is_accumulated_under_one_scale():
    inputs = accumulated_batch()[:4]
    expected = step(tiny_model(*CASES["H-CLIP"]), inputs, 1)
    found = step(tiny_model(*CASES["H-CLIP"]), inputs, 2, amp_dtype=torch.float16)
    assert_same(found, expected, 0.05)


def run_rank(rank: int, folder: str) -> None:
    """What each process does: a step at once and one in two micro-batches."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS
    )
    local = IMAGES // RANKS
    inputs = accumulated_batch()[rank * local : (rank + 1) * local]
    found = {}
    for case in RANK_CASES:
        for steps in (1, 2):
            model = double_model(case)
            names = {id(p): name for name, p in model.named_parameters()}
            reduced: list[tuple[list[str], int]] = []

            def hook(_, bucket, names=names, reduced=reduced):
                reduced.append(
                    ([names[id(p)] for p in bucket.parameters()], bucket.buffer().nbytes)
                )
                work = dist.all_reduce(bucket.buffer().div_(RANKS), async_op=True)
                return work.get_future().then(lambda done: done.value()[0])

            wrapped = DistributedDataParallel(model, broadcast_buffers=False)
            wrapped.register_comm_hook(None, hook)
            found[f"{case} {steps}"] = step(wrapped, inputs, steps) | {"reduced": reduced}
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The results of both ranks, by case and steps."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(run_rank, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("case", RANK_CASES)
def test_processes_with_micro_batches_give_the_step_of_the_joint_batch(ranks, case):
    expected = step(double_model(case), accumulated_batch(), 1)
    first, second = (rank[f"{case} 2"] for rank in ranks)
    assert_same(first, expected, tolerance_of(case))
    second["logged"] = first["logged"]  # rank 0 logs for all
    assert_same(second, expected, tolerance_of(case))


@pytest.mark.parametrize("case", RANK_CASES)
@pytest.mark.parametrize("steps", [1, 2])
def test_a_step_reduces_each_trained_gradient_once_and_nothing_else(ranks, case, steps):
    parameters = dict(double_model(case).named_parameters())
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    assert len(trained) < len(parameters)
    for rank in ranks:
        reduced = rank[f"{case} {steps}"]["reduced"]
        assert sorted(chain(*(names for names, _ in reduced))) == sorted(trained)
        assert sum(size for _, size in reduced) == sum(p.nbytes for p in trained.values())


def test_the_trainer_splits_the_same_stream_in_order(cfg):
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATASETS.TEST = 4, ()
    drawn = {}
    for steps in (1, 2):
        cfg.SOLVER.ACCUMULATION_STEPS = steps
        trainer = Trainer(cfg)._trainer
        seen = drawn[steps] = []
        trainer.model.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        with EventStorage():
            for _ in range(3):
                trainer.run_step()
    assert [len(part) for part in drawn[1]] == [4] * 3
    assert [len(part) for part in drawn[2]] == [2] * 6
    for whole, part in zip(chain(*drawn[1]), chain(*drawn[2]), strict=True):
        assert whole["file_name"] == part["file_name"]
        assert torch.equal(whole["image"], part["image"])
