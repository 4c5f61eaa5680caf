from __future__ import annotations

from itertools import repeat

import pytest
import torch
from detectron2.utils.events import EventStorage

from cat_seg.configuration.precision import amp_dtype, set_float32_precision
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
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.DTYPE = device, name
    assert amp_dtype(cfg) is None
    cfg.SOLVER.AMP.ENABLED = True
    assert amp_dtype(cfg) == dtype


def test_a_gpu_without_bfloat16_is_named(cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    cfg.merge_from_list(["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16"])
    cfg.MODEL.DEVICE = "cuda"
    with pytest.raises(UserError, match=r"SOLVER\.AMP\.DTYPE is 'bfloat16', .* set it to float16"):
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
