"""What of a checkpoint is loaded to answer with and to start a training from."""

from __future__ import annotations

import math

import pytest
import torch

from cat_seg.checkpoint import load_into, start_from
from cat_seg.checkpoint.fitting import check_finite
from cat_seg.errors import UserError
from tests.published import ENHANCED, HEAD, HYPER, MODELS, OFT, PREDICTOR, PUBLISHED, published
from tests.tiny import answer, assert_same, batch, image, tiny_model, write_clip

HPA = ("hpa.prototypes", "hpa.prototype_initialized", "hpa.log_temperatures")
NO_HPA = (*ENHANCED, f"{HYPER}USE_HPA", False)


def of_other_classes(state):
    """The state as after training on three more classes."""
    more = {name: torch.cat([state[name], state[name][:3]]) for name in HPA}
    return state | more


def both_formats(model):
    return model.state_dict(), published(model)


def values(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def refused(model, load, state) -> str:
    before = values(model)
    with pytest.raises(UserError) as error:
        load(model, state)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(error.value)


def to_answer(model, state):
    return load_into(model, state, strict=False)


def moved(model):
    """The model with every entry elsewhere than tiny_model's."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01
    return model


@pytest.fixture
def hps_seg():
    model = moved(tiny_model(*ENHANCED))
    model(batch())  # so that there are prototypes
    return model


# To answer


@pytest.mark.parametrize("target", [ENHANCED, NO_HPA])
@pytest.mark.parametrize("classes", ["same", "other"])
def test_what_serves_training_alone_does_not_matter_to_an_answer(hps_seg, target, classes):
    entry = {"image": image(64, 64)}
    expected = answer(hps_seg, entry)
    for state in both_formats(hps_seg):
        state = of_other_classes(state) if classes == "other" else state
        model = tiny_model(*target)
        _, missing, unexpected = load_into(model, state, strict=False)
        resized = set(HPA) if classes == "other" and target == ENHANCED else set()
        assert set(missing) == resized and set(unexpected) >= resized
        assert_same(answer(model, entry), expected)


def test_a_model_with_hpa_answers_with_weights_without(hps_seg):
    plain = {n: t for n, t in hps_seg.state_dict().items() if not n.startswith("hpa.")}
    model = tiny_model(*ENHANCED)
    _, missing, unexpected = load_into(model, plain, strict=False)
    assert set(missing) == {n for n in model.state_dict() if n.startswith("hpa.")}
    assert not unexpected
    entry = {"image": image(64, 64)}
    assert_same(answer(model, entry), answer(hps_seg, entry))


@pytest.mark.parametrize(
    ("source", "target", "named"),
    [
        ("HPS-Seg", "H-CLIP", "AFR"),
        ("H-CLIP", "HPS-Seg", "AFR"),
        ("HPS-Seg", "HPS-Seg without AFR", "AFR"),
        ("H-CLIP", "CAT-Seg", "H-CLIP"),
        ("CAT-Seg", "H-CLIP", "H-CLIP"),
        ("HyperCLIP", "H-CLIP", "HyperCLIP"),
        ("CAT-Seg", "HyperCLIP", "HyperCLIP"),
        ("HyperCLIP++", "H-CLIP", "HyperCLIP++"),
        ("HyRo", "HyperCLIP", "HyRo"),
        ("HyperCLIP", "HyRo", "HyRo"),
    ],
)
def test_what_changes_an_answer_is_neither_fresh_nor_dropped(source, target, named):
    model = tiny_model(*MODELS[target])
    for state in both_formats(tiny_model(*MODELS[source])):
        message = refused(model, to_answer, state)
        assert named in message


@pytest.mark.parametrize(
    "name",
    ["afr.mix_weight", "sem_seg_head.upsample1.bias", "sem_seg_head.aggregator.head.weight"],
)
def test_a_single_missing_entry_that_changes_answers_is_named(hps_seg, name):
    state = {key: value for key, value in hps_seg.state_dict().items() if key != name}
    model = tiny_model(*ENHANCED)
    message = refused(model, to_answer, state)
    assert name in message or "AFR" in message


def test_an_entry_of_a_published_model_without_a_place_is_named():
    model = tiny_model()
    name = f"{PREDICTOR}transformer.layers.0.extra.weight"
    state = published(model) | {name: torch.zeros(1)}
    assert name in refused(model, to_answer, state)


@pytest.mark.parametrize("name", HPA)
def test_to_resume_everything_has_to_fit(hps_seg, name):
    model = tiny_model(*ENHANCED)
    other = of_other_classes(hps_seg.state_dict())
    assert "checkpoint entry hpa." in refused(model, load_into, other)
    less = {key: value for key, value in hps_seg.state_dict().items() if key != name}
    assert "hpa" in refused(model, load_into, less).lower()


# To start a training


def same_parts(model, state, prefixes):
    own = model.state_dict()
    names = [name for name in own if name.startswith(prefixes)]
    assert names
    return [torch.equal(own[name], state[name]) for name in names if name in state]


@pytest.mark.parametrize("published_format", [False, True])
def test_hps_seg_starts_on_another_class_list(hps_seg, published_format):
    state = both_formats(hps_seg)[published_format]
    model = tiny_model(*ENHANCED)
    start = start_from(model, of_other_classes(state))
    assert start.format == ("HPS-Seg" if published_format else "ours")
    assert start.loaded == ["CLIP", "OFT adapters", "aggregator", "AFR", "HPA projection"]
    assert start.fresh == ["HPA prototypes"]
    assert not start.dropped
    assert not model.hpa.prototype_initialized.any()
    own, theirs = model.state_dict(), hps_seg.state_dict()
    assert all(torch.equal(own[n], theirs[n]) for n in own if n not in HPA)
    losses = model(batch())
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert model.hpa.prototype_initialized.any()


def test_prototypes_of_as_many_classes_are_loaded(hps_seg):
    model = tiny_model(*ENHANCED)
    start = start_from(model, hps_seg.state_dict())
    assert not start.fresh and not start.dropped
    assert torch.equal(model.hpa.prototypes, hps_seg.hpa.prototypes)


@pytest.mark.parametrize("source", MODELS)
@pytest.mark.parametrize("target", MODELS)
def test_any_model_starts_any_other(source, target):
    theirs = moved(tiny_model(*MODELS[source]))
    for state in both_formats(theirs) if source in PUBLISHED else [theirs.state_dict()]:
        model = tiny_model(*MODELS[target])
        before, start = values(model), None
        start = start_from(model, state)
        own, expected = model.state_dict(), theirs.state_dict()
        assert all(torch.equal(own[name], expected.get(name, before[name])) for name in own)
        groups = {part.split()[0] for part in (*start.loaded, *start.fresh)}
        assert "CLIP" in groups and "aggregator" in start.loaded
        for part, prefix in (("AFR", "afr."), ("HPA projection", "hpa.")):
            in_file = any(name.startswith(prefix) for name in expected)
            in_model = any(name.startswith(prefix) for name in own)
            assert (part in start.loaded) == (in_file and in_model)
            assert (part in start.fresh) == (in_model and not in_file)
            assert (part in start.dropped) == (in_file and not in_model)
        for part, key in (
            ("OFT adapters", "adapter.generators"),
            ("hyperbolic adapters", "adapter.text"),
            ("HyperCLIP++ adapters", "adapter.shared"),
            ("HyRo adapters", "adapter.rotation_text"),
            ("LoRA adapters", "adapter.lora_image_q_down"),
        ):
            in_file = any(name.endswith(key) for name in expected)
            in_model = any(name.endswith(key) for name in own)
            assert (part in start.fresh) == (in_model and not in_file)
            assert (part in start.dropped) == (in_file and not in_model)


def test_parts_of_another_size_start_fresh_as_a_whole(hps_seg):
    model = tiny_model(*ENHANCED, f"{HYPER}AFR_REDUCTION", 8)
    before = values(model)
    start = start_from(model, hps_seg.state_dict())
    assert start.fresh == ["AFR"]
    assert all(same_parts(model, before, "afr."))
    hyperbolic = moved(tiny_model(*MODELS["HyperCLIP"]))
    model = tiny_model(*MODELS["HyperCLIP"], "MODEL.HYPERBOLIC.BLOCK_SIZE", 64)
    before = values(model)
    assert start_from(model, hyperbolic.state_dict()).fresh == ["hyperbolic adapters"]
    assert all(same_parts(model, before, "sem_seg_head.clip.adapter."))


def test_adapters_of_other_projections_start_fresh():
    """q and v have the shapes of k and v, and must not be taken for them."""
    source = moved(tiny_model(*MODELS["LoRA"]))
    key = "MODEL.ADAPTER.LORA.IMAGE_PROJECTIONS"
    model = tiny_model(*MODELS["LoRA"], key, ("k", "v"))
    before = values(model)
    start = start_from(model, source.state_dict())
    assert start.fresh == ["LoRA adapters"]
    assert all(same_parts(model, before, "sem_seg_head.clip.adapter."))


def test_of_the_aggregator_every_entry_that_fits_is_loaded():
    source = moved(tiny_model("MODEL.PROMPT_ENSEMBLE_TYPE", "imagenet"))
    model = tiny_model()
    before = values(model)
    start = start_from(model, source.state_dict())
    name = "sem_seg_head.aggregator.cost_embedding.weight"
    assert (
        f"1 of {len(same_parts(model, before, aggregator()))} entries of the aggregator"
        in (start.fresh[0])
    )
    assert name in start.fresh[0]
    own, theirs = model.state_dict(), source.state_dict()
    assert all(torch.equal(own[n], (before if n == name else theirs)[n]) for n in own)


def aggregator():
    return ("sem_seg_head.aggregator.", "sem_seg_head.upsample")


def test_layers_that_are_not_in_the_model_are_named():
    source, model = moved(tiny_model()), tiny_model(f"{HEAD}NUM_LAYERS", 1)
    start = start_from(model, source.state_dict())
    assert "of the aggregator" in start.dropped[0] and "layers.1" in start.dropped[0]


def test_entries_that_nobody_knows_are_named():
    model = tiny_model()
    start = start_from(model, model.state_dict() | {"extra.weight": torch.zeros(1)})
    assert start.dropped == ["1 unknown entries (such as extra.weight)"]


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_cfg__layers": 4},
        {"vision_cfg__width": 128},
        {"text_cfg__layers": 1},
        {"embed_dim": 32},
    ],
)
@pytest.mark.parametrize("published_format", [False, True])
def test_another_clip_is_refused(changes, published_format, tmp_path):
    config = str(write_clip(tmp_path, "other", **changes))
    other = tiny_model(*OFT, f"{HEAD}CLIP_PRETRAINED", config)
    state = both_formats(other)[published_format]
    model = tiny_model(*OFT)
    message = refused(model, start_from, state)
    assert "CLIP" in message or "sem_seg_head.clip" in message or "clip_model" in message


def test_a_checkpoint_of_another_kind_is_refused():
    model = tiny_model()
    for state in ({"conv1.weight": torch.zeros(1)}, {}, {"backbone.stem.weight": torch.ones(1)}):
        assert "not a CAT-Seg" in refused(model, start_from, state)
    clip = {"visual.class_embedding": torch.zeros(1)}
    assert "CLIP_WEIGHTS" in refused(model, start_from, clip)


# Values


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("published_format", [False, True])
def test_values_that_are_not_finite_name_the_first_entry(value, published_format):
    model = tiny_model()
    state = {n: t.clone() for n, t in both_formats(model)[published_format].items()}
    name = next(n for n in state if n.endswith("fc1.weight"))
    state[name].view(-1)[-1] = value
    last = next(n for n in reversed(state) if state[n].is_floating_point() and state[n].ndim > 1)
    if "attn_mask" not in last:
        state[last].view(-1)[0] = value
    for load in (
        load_into,
        to_answer,
        start_from,
    ):
        message = refused(model, load, state)
        assert name in message and "NaN or infinite" in message


def test_what_is_not_loaded_may_be_anything(hps_seg):
    state = hps_seg.state_dict()
    state = {
        n: t * math.nan if n.startswith("hpa.pro") and t.dtype.is_floating_point else t
        for n, t in state.items()
    }
    load_into(tiny_model(*NO_HPA), state, strict=False)
    mask = f"{PREDICTOR}transformer.layers.0.swin_block.block_2.attn_mask"
    model = tiny_model()
    load_into(model, published(model) | {mask: torch.full((4, 4, 4), -math.inf)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype):
    source, model = moved(tiny_model()), tiny_model()
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in source.state_dict().items()}
    for load in (load_into, start_from):
        load(model, state)
        for name, tensor in model.state_dict().items():
            assert tensor.dtype == source.state_dict()[name].dtype
            assert torch.equal(tensor, state[name].to(tensor.dtype))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1.0, -2.0], dtype=torch.float8_e4m3fn),
        torch.zeros(0),
        torch.tensor([3]),
        torch.tensor([True]),
        torch.tensor([65504.0] * 100, dtype=torch.float16),
        torch.tensor([3e38] * 100),
    ],
)
def test_finite_values_of_all_kinds(tensor):
    check_finite({"a": tensor}, {"a": "a"})


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float64])
def test_nan_in_all_precisions(dtype):
    with pytest.raises(UserError, match="its entry b"):
        check_finite({"a": torch.tensor([0.0, math.nan]).to(dtype)}, {"a": "b"})


def test_tensors_that_are_not_plain_are_named():
    with pytest.raises(UserError, match="entry b is a sparse"):
        check_finite({"a": torch.eye(3).to_sparse()}, {"a": "b"})


def test_the_check_needs_no_memory_of_the_weights_size():
    weights = {"a": torch.ones(2000, 2000)}
    with torch.profiler.profile(profile_memory=True) as profile:
        check_finite(weights, {"a": "a"})
    assert max(event.cpu_memory_usage for event in profile.key_averages()) < 1e6
