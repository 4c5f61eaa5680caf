from __future__ import annotations

import os
from itertools import repeat

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.utils._python_dispatch import TorchDispatchMode

from cat_seg.configuration.precision import (
    WORKSPACE,
    amp_dtype,
    set_determinism,
    set_float32_precision,
)
from cat_seg.engine import Trainer, argument_parser, setup
from cat_seg.engine.step import StepTrainer
from cat_seg.errors import UserError
from cat_seg.modeling.losses import sem_seg_loss
from tests.tiny import batch, tiny_model

STEPS = 6


def losses_of(dtype: torch.dtype | None) -> list[float]:
    """The total loss of every step of a short training on one batch."""
    model = tiny_model("MODEL.SEM_SEG_HEAD.CLIP_FINETUNE", "oft_both")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    trainer = StepTrainer(model, repeat(batch()), optimizer, device_type="cpu", amp_dtype=dtype)
    assert trainer.grad_scaler.is_enabled() == (dtype == torch.float16)
    found = []
    with EventStorage() as storage:
        for _ in range(STEPS):
            trainer.run_step()
            found.append(storage.latest()["total_loss"][0])
    assert all(p.dtype == torch.float32 for p in model.parameters())
    return found


@pytest.fixture(scope="module")
def full_precision() -> list[float]:
    return losses_of(None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains_to_the_same_loss(full_precision, dtype):
    assert full_precision[-1] < 0.9 * full_precision[0]
    mixed = losses_of(dtype)
    assert mixed != full_precision
    assert mixed == pytest.approx(full_precision, rel=0.01)


def test_the_segmentation_loss_is_computed_in_float32():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator).bfloat16()
    labels = torch.randint(3, (2, 16, 16), generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sem_seg_loss(logits, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, sem_seg_loss(logits.float(), labels))


def test_every_loss_is_float32_and_outlives_the_first_loss_scale():
    model = tiny_model(
        *("MODEL.META_ARCHITECTURE", "EnhancedCATSeg", "MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4)
    )
    with torch.autocast("cpu", dtype=torch.float16):
        losses = model(batch())
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    torch.amp.GradScaler("cpu").scale(sum(losses.values())).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("device", "name", "dtype"),
    [
        ("cpu", "auto", torch.bfloat16),
        ("cuda", "auto", torch.float16),
        ("cuda:1", "bfloat16", torch.bfloat16),
        ("cpu", "float16", torch.float16),
    ],
)
def test_the_type_follows_the_config(cfg, monkeypatch, device, name, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.DTYPE = device, name
    assert amp_dtype(cfg) is None
    cfg.SOLVER.AMP.ENABLED = True
    assert amp_dtype(cfg) == dtype


def test_a_gpu_that_only_emulates_bfloat16_is_refused(cfg, monkeypatch):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    cfg.merge_from_list(["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16"])
    cfg.MODEL.DEVICE = "cuda"
    with pytest.raises(
        UserError, match=r"SOLVER\.AMP\.DTYPE is 'bfloat16', .* emulates; set it to float16"
    ):
        amp_dtype(cfg)


def test_an_unknown_type_is_found_before_the_model_is_built(cfg, monkeypatch):
    monkeypatch.setattr(Trainer, "build_model", lambda *_: pytest.fail("built a model"))
    cfg.SOLVER.AMP.DTYPE = "half"
    with pytest.raises(UserError, match=r"SOLVER\.AMP\.DTYPE is 'half'; set it to one of auto, fl"):
        Trainer(cfg)


@pytest.fixture
def float32_settings():
    """Put the process's settings back after a test."""
    precision, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = cudnn, benchmark


def settings() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def test_tf32_is_for_products_and_convolutions_together(cfg, float32_settings):
    cfg.MODEL.DEVICE = "cuda"
    assert cfg.MODEL.TF32
    set_float32_precision(cfg)
    assert settings() == ("high", True)
    cfg.MODEL.TF32 = False
    set_float32_precision(cfg)
    assert settings() == ("highest", False)


@pytest.mark.parametrize("before", [("highest", True), ("medium", False)])
def test_a_cpu_computes_as_before(cfg, float32_settings, before):
    """There, "high" may take products of bfloat16."""
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
    set_float32_precision(cfg)
    assert settings() == before


@pytest.mark.parametrize("tf32", [True, False])
def test_training_and_evaluation_set_it(cfg, float32_settings, tf32):
    cfg.MODEL.DEVICE, cfg.MODEL.TF32 = "cuda", tf32
    torch.set_float32_matmul_precision("medium")
    for given in ([], ["--eval-only"]):
        setup(cfg, argument_parser().parse_args(given))
        assert settings() == (("high", True) if tf32 else ("highest", False))


def test_cudnn_benchmark_is_for_training_as_published(cfg, float32_settings):
    cfg.CUDNN_BENCHMARK = True
    for given, expected in ((["--eval-only"], False), ([], True)):
        torch.backends.cudnn.benchmark = False
        setup(cfg, argument_parser().parse_args(given))
        assert torch.backends.cudnn.benchmark is expected


@pytest.fixture
def determinism(monkeypatch, float32_settings):
    """Put the process's settings back after a test."""
    monkeypatch.setenv(WORKSPACE, "removed at the end")
    monkeypatch.delenv(WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.deterministic = before[1]


def deterministic_settings() -> tuple[bool, bool, bool, str | None]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        os.environ.get(WORKSPACE),
    )


@pytest.mark.parametrize(
    ("device", "wanted", "expected"),
    [
        ("cuda", True, (True, True, False, ":4096:8")),
        ("cuda", False, (False, False, True, None)),
        ("cpu", True, (False, False, True, None)),
    ],
)
def test_determinism_is_for_gpus_and_beats_the_benchmark(
    cfg, determinism, device, wanted, expected
):
    cfg.CUDNN_BENCHMARK = True
    cfg.MODEL.DEVICE, cfg.MODEL.DETERMINISTIC = device, wanted
    setup(cfg, argument_parser().parse_args([]))
    assert deterministic_settings() == expected


def test_a_workspace_of_the_user_is_kept_or_refused(cfg, determinism, monkeypatch):
    cfg.MODEL.DEVICE, cfg.MODEL.DETERMINISTIC = "cuda", True
    monkeypatch.setenv(WORKSPACE, ":16:8")
    set_determinism(cfg)
    assert deterministic_settings() == (True, True, False, ":16:8")
    monkeypatch.setenv(WORKSPACE, ":4096:2:16:8")
    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG is ':4096:2:16:8'; unset it, or"):
        set_determinism(cfg)


# Operations whose gradient, or sum, PyTorch has no deterministic CUDA kernel for.
NONDETERMINISTIC = {
    "_adaptive_avg_pool2d_backward",
    "_ctc_loss_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "bincount",
    "grid_sampler_2d_backward",
    "histc",
    "kthvalue",
    "median",
    "nll_loss2d_backward",
    "nll_loss2d_forward",
    "put",
    "put_",
    "reflection_pad2d_backward",
    "upsample_bicubic2d_backward",
    "upsample_linear1d_backward",
    "upsample_trilinear3d_backward",
}


class Operations(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "fine_tuning", ["full", "hyperbolic", "hyperbolic_plus", "hyro", "lora", "oft_both"]
)
def test_every_operation_of_a_training_step_has_a_deterministic_kernel(fine_tuning):
    """upsample_bilinear2d_backward has none, but F.interpolate replaces it in this mode."""
    model = tiny_model(
        *("MODEL.META_ARCHITECTURE", "EnhancedCATSeg", "MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4),
        *("MODEL.HYPERSPHERICAL.HPA_SEPARATION_WEIGHT", 0.5),
        *("MODEL.SEM_SEG_HEAD.CLIP_FINETUNE", fine_tuning, "MODEL.ADAPTER.HYRO.ROTATION_SIZE", 128),
    )
    with Operations() as seen, torch.autograd.set_multithreading_enabled(False):
        sum(model(batch()).values()).backward()
    assert "upsample_bilinear2d_backward" in seen.names  # those of the backward pass are seen
    assert not seen.names & NONDETERMINISTIC
