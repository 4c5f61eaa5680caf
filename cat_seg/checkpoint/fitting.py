"""Which entries of a checkpoint are loaded into a model, and which checkpoints are refused.

What must be present and fit depends on the use:

- Resuming: every entry.
- Inference: every entry that affects predictions. HPA is only used in training.
- Starting a training run: CLIP. Other entries are loaded if they fit; new ones keep their
  initialization, and entries unknown to the model are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cat_seg.checkpoint.clip_formats import Converted
from cat_seg.checkpoint.formats import convert, format_of
from cat_seg.checkpoint.parts import AGGREGATOR, CLIP, HPA, components, describe, kind_of, part_of
from cat_seg.errors import UserError

_TRAINING_ONLY = "hpa."
_COST_EMBEDDING = "sem_seg_head.aggregator.cost_embedding.weight"
_TEMPLATES_2023 = 80
_SAME_CONFIG = "use the config the checkpoint was trained with"


class Loaded(NamedTuple):
    """What was loaded for inference or resuming.

    format: the checkpoint's format; "state dict" for a model that is not of this project.
    missing: the model's entries that were not loaded.
    unexpected: the file's entries that were not used.
    """

    format: str
    missing: list[str]
    unexpected: list[str]


class Start(NamedTuple):
    """What a training run starts from.

    format: the checkpoint's format.
    loaded: descriptions of the model parts that were loaded.
    fresh: descriptions of the model parts that keep their initialization.
    dropped: descriptions of the file's parts that the model does not have.
    """

    format: str
    loaded: list[str]
    fresh: list[str]
    dropped: list[str]


class _Comparison(NamedTuple):
    """Entries, by our names, that are missing in the file, differ in shape, or are not ours."""

    missing: list[str]
    reshaped: list[str]
    foreign: list[str]


def is_segmentation_model(model: nn.Module) -> bool:
    """Return whether a model is of this project, judging by the names of its entries."""
    return format_of(model.state_dict()) == "ours"


def load_into(model: nn.Module, state: Mapping[str, Tensor], strict: bool = True) -> Loaded:
    """Load a checkpoint in any known format into a model, for inference or resuming.

    A model that is not of this project loads its own state dict, as PyTorch does.

    Args:
        model: the model. If the checkpoint is refused, the model is not changed.
        state: the checkpoint's entries.
        strict: every entry must fit, as for resuming. If False, only the entries that affect
            predictions must fit; those used only in training (HPA) may be missing, unexpected or
            of another shape.

    Returns:
        What was done. Training-only entries with another shape are both missing and unexpected, and
        entries that hold no weights (masks, sizes, flags) are unexpected.

    Raises:
        UserError: the checkpoint is of another model, an entry is missing, unknown to the model or
            of another shape, or a value is not finite.
    """
    if not is_segmentation_model(model):
        missing, unexpected = model.load_state_dict(state, strict=strict)
        return Loaded("state dict", missing, unexpected)
    own = model.state_dict()
    found, converted = _converted(state, own)
    compared = _compare(own, converted.tensors)
    checked = compared if strict else _Comparison(*map(_affecting_predictions, compared))
    _check_same_model(own, converted, strict)
    _refuse(own, converted, checked)
    _load_fitting(model, own, converted, compared.reshaped)
    unplaced = [converted.sources[name] for name in compared.foreign + compared.reshaped]
    return Loaded(found, compared.missing + compared.reshaped, converted.unused + unplaced)


def start_from(model: nn.Module, state: Mapping[str, Tensor]) -> Start:
    """Load the entries that fit from a checkpoint in any known format, to start training.

    Parts other than the aggregator are loaded as a whole or not at all.

    Args:
        model, state: as in `load_into`; the model is of this project.

    Raises:
        UserError: the checkpoint has another CLIP, its model is not one of this project's, or a
            value is not finite.
    """
    own = model.state_dict()
    found, converted = _converted(state, own)
    compared = _compare(own, converted.tensors)
    _refuse(own, converted, _Comparison(*map(_of_clip, compared)))
    incomplete = {part_of(name) for name in compared.missing + compared.reshaped} - {AGGREGATOR}
    fresh = [n for n in own if n not in converted.tensors or n in compared.reshaped]
    fresh += [n for n in own if part_of(n) in incomplete and n not in fresh]
    _load_fitting(model, own, converted, fresh)
    return Start(
        found,
        describe([n for n in own if n not in fresh], own),
        describe(fresh, own),
        describe(compared.foreign, converted.tensors),
    )


def check_finite(tensors: Mapping[str, Tensor], sources: Mapping[str, str]) -> None:
    """Refuse weights that are not finite, without allocating a mask of their size.

    Args:
        tensors: by our names.
        sources: our name -> the name in the file.

    Raises:
        UserError: naming the first such entry, or one that is sparse or quantized.
    """
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise UserError(
                f"its entry {sources[name]} is a sparse or quantized tensor; save it as a dense one"
            )
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        wide = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # no aminmax for float8
        if not all(math.isfinite(extreme) for extreme in wide.aminmax()):  # NaN propagates
            raise UserError(
                f"its entry {sources[name]} has NaN or infinite values: the training run diverged"
                " or the file is damaged; use an earlier checkpoint"
            )


def _converted(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[str, Converted]:
    """Return the format of a checkpoint, and its entries under our names."""
    found = format_of(state)
    if found == "CLIP":
        raise UserError(
            "the checkpoint is a plain CLIP; set MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS to it instead"
        )
    if found == "unknown":
        raise UserError(
            "not a CAT-Seg, H-CLIP, HPS-Seg, HyperCLIP, HyperCLIP++ or HyRo checkpoint (it contains"
            f" {next(iter(state), 'nothing')}); use a checkpoint of one of these models"
        )
    if found != "ours":
        _check_current(state, own)
    return found, convert(state)


def _check_current(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse CAT-Seg's 2023 checkpoints, with an extra backbone or 80 templates in the cost."""
    backbone = next((name for name in state if name.startswith("backbone.")), None)
    cost = state.get("sem_seg_head.predictor.transformer.conv1.weight")
    templates = None if cost is None or cost.ndim < 2 else cost.shape[1]
    wanted = own[_COST_EMBEDDING].shape[1]
    if backbone or (templates == _TEMPLATES_2023 != wanted):
        sign = f"it contains {backbone}" if backbone else f"it has {templates} prompt templates"
        raise UserError(
            f"this is a 2023 CAT-Seg checkpoint ({sign}), from an earlier, incompatible version of"
            " the model; use CAT-Seg's current files, model_base.pth or model_large.pth"
        )


def _compare(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> _Comparison:
    return _Comparison(
        [name for name in own if name not in tensors],
        [name for name in own if name in tensors and own[name].shape != tensors[name].shape],
        [name for name in tensors if name not in own],
    )


def _affecting_predictions(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(_TRAINING_ONLY)]


def _of_clip(names: Iterable[str]) -> list[str]:
    return [name for name in names if part_of(name) == CLIP]


def _refuse(own: Mapping[str, Tensor], converted: Converted, compared: _Comparison) -> None:
    """Refuse entries of another shape, missing entries and unknown entries, in this order."""
    clip = _of_clip(compared.reshaped)
    for name in clip or compared.reshaped:
        shape = tuple(converted.tensors[name].shape)
        remedy = "set MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED to the checkpoint's CLIP"
        raise UserError(
            f"checkpoint entry {converted.sources[name]} has shape {shape}, but this config's model"
            f" expects {tuple(own[name].shape)}; {remedy if clip else _SAME_CONFIG}"
        )
    if compared.missing:
        raise UserError(
            f"the checkpoint has no {compared.missing[0]} ({len(compared.missing)} missing entries"
            " in total); use a complete checkpoint"
        )
    if compared.foreign:
        raise UserError(
            f"this config's model has no {converted.sources[compared.foreign[0]]}, which is in the"
            f" checkpoint ({len(compared.foreign)} unexpected entries in total); {_SAME_CONFIG}"
        )


def _load_fitting(
    model: nn.Module, own: Mapping[str, Tensor], converted: Converted, without: Iterable[str]
) -> None:
    left_out = set(without)
    fitting = {n: t for n, t in converted.tensors.items() if n in own and n not in left_out}
    check_finite(fitting, converted.sources)
    model.load_state_dict(fitting, strict=False)


def _check_same_model(own: Mapping[str, Tensor], converted: Converted, strict: bool) -> None:
    theirs, ours = components(converted.tensors), components(own)
    compared = [[c for c in found if strict or c != HPA] for found in (theirs, ours)]
    if compared[0] != compared[1]:
        raise UserError(
            f"the checkpoint's model is {kind_of(theirs)}, but this config's model is"
            f" {kind_of(ours)}; {_SAME_CONFIG}"
        )
