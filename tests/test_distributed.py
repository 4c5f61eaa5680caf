"""Two processes train as one process does on the joint batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cat_seg.analysis.diagnostics_hook import unchanged
from cat_seg.analysis.gradients import measure_gradients
from tests.tiny import batch, tiny_model

RANKS, IMAGES, STEPS = 2, 2, 2  # images a rank
ENHANCED = ("MODEL.META_ARCHITECTURE", "EnhancedCATSeg", "MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4)
FINE_TUNING = "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE"
CASES = {
    "CATSeg": (FINE_TUNING, "attention"),
    "EnhancedCATSeg": (*ENHANCED, FINE_TUNING, "full"),
    "EnhancedCATSeg with separation": (
        *ENHANCED,
        FINE_TUNING,
        "oft_both",
        "MODEL.HYPERSPHERICAL.HPA_SEPARATION_WEIGHT",
        0.5,
    ),
}


def accumulated_batch(step: int) -> list[dict[str, Tensor]]:
    """All ranks' inputs of a step; the ranks hold unequal numbers of labeled pixels."""
    inputs = batch(*[(64, 64)] * (RANKS * IMAGES), seed=10 * step)
    if step == 0:  # rank 1 sees a corner of its first image
        inputs[2]["sem_seg"][32:] = 255
        inputs[2]["sem_seg"][:, 16:] = 255
        inputs[3]["sem_seg"][:] = 255
    else:  # rank 0 sees no label at all
        inputs[0]["sem_seg"][:] = 255
        inputs[1]["sem_seg"][:] = 255
    return inputs


def train(model: nn.Module, wrapped: nn.Module, part: slice) -> list[dict]:
    """Two steps on a part of the joint batches: losses, gradients and prototypes of each."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    records = []
    for step in range(STEPS):
        losses = wrapped(accumulated_batch(step)[part])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        records.append(
            {
                "losses": {name: loss.detach() for name, loss in losses.items()},
                "gradients": {
                    name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad
                },
                "buffers": {n: b.clone() for n, b in model.named_buffers() if "prototype" in n},
            }
        )
        optimizer.step()
    return records


def diagnose(model: nn.Module) -> dict[str, float]:
    """The gradient norms on inputs that are the same for all ranks."""
    with unchanged(model):
        measured = measure_gradients(model, batch(seed=3))
    return {name: value for name, value in measured.items() if name.endswith("norm")}


def run_rank(rank: int, folder: str) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS
    )
    part = slice(rank * IMAGES, (rank + 1) * IMAGES)
    found = {}
    for case, overrides in CASES.items():
        model = tiny_model(*overrides)
        wrapped = DistributedDataParallel(
            model, find_unused_parameters=False, broadcast_buffers=False
        )
        found[case] = train(model, wrapped, part)
        found[case].append(diagnose(model))
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The records of both ranks, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(run_rank, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("case", CASES)
def test_gradients_losses_and_prototypes_are_those_of_one_process(ranks, case):
    model = tiny_model(*CASES[case])
    expected = train(model, model, slice(None))
    for step in range(STEPS):
        one, first, second = expected[step], ranks[0][case][step], ranks[1][case][step]
        for name, loss in one["losses"].items():
            mean = (first["losses"][name] + second["losses"][name]) / 2
            torch.testing.assert_close(mean, loss, atol=1e-6, rtol=1e-4)
        assert first["gradients"].keys() == one["gradients"].keys()
        for name, gradient in one["gradients"].items():
            for rank in (first, second):
                found = rank["gradients"][name]
                close = torch.allclose(found, gradient, atol=2e-6, rtol=1e-3)
                assert close, f"step {step}, {name}: off by {(found - gradient).abs().max()}"
        assert len(one["buffers"]) == (2 if "Enhanced" in case else 0)
        for name, buffer in one["buffers"].items():
            assert torch.equal(first["buffers"][name], second["buffers"][name])
            torch.testing.assert_close(first["buffers"][name], buffer, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_every_rank_measures_the_gradients_of_one_process(ranks, case):
    model = tiny_model(*CASES[case])
    train(model, model, slice(None))
    expected = diagnose(model)
    assert ranks[0][case][-1] == ranks[1][case][-1] == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_the_ranks_see_different_classes():
    """Otherwise the test above would not notice prototypes of one rank's own."""
    inputs = accumulated_batch(0)
    known = []
    for rank in range(RANKS):
        part = inputs[rank * IMAGES : (rank + 1) * IMAGES]
        on_grid = torch.stack([entry["sem_seg"][::16, ::16] for entry in part])
        known.append(set(on_grid.unique().tolist()) - {255})
    assert known[0] and known[1] and known[0] != known[1]
