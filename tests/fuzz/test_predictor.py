"""Odd arrays and class names for a predictor: an answer that fits, or a UserError."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cat_seg.errors import UserError
from cat_seg.predictor import Predictor
from tests.fuzz import properties
from tests.tiny import tiny_cfg, tiny_model

QUICK = settings.get_profile(properties.QUICK)
LIMIT = 300.0  # seconds for a test, after which the process ends with a traceback
SIDES = st.one_of(st.integers(0, 3), st.integers(4, 90), st.sampled_from([600, 1025]))
TYPES = st.sampled_from(["i1", "u2", ">u2", "i8", "f4", "f8", "c8", "?", "O", "U3", "M8[s]"])


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    folder = tmp_path_factory.mktemp("predictor")
    weights = folder / "model.pth"
    torch.save(tiny_model().state_dict(), weights)
    keys = ["MODEL.WEIGHTS", str(weights), "INPUT.MIN_SIZE_TEST", 32, "INPUT.MAX_SIZE_TEST", 64]
    return Predictor(tiny_cfg(folder, *keys))


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    """Mostly (H, W, 3) uint8, in any memory layout; sometimes another shape or type."""
    shape = (draw(SIDES), draw(SIDES), 3)
    if draw(st.integers(0, 3)) == 0:
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    dtype = "u1" if draw(st.booleans()) else draw(TYPES)
    image = np.zeros(shape, dtype)
    if dtype == "u1":
        image = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, shape, np.uint8)
    layout = draw(st.sampled_from(["plain", "flipped", "fortran", "strided", "locked"]))
    if layout == "flipped":
        return image[::-1, ..., ::-1] if image.ndim > 1 else image[..., :]
    if layout == "fortran":
        return np.asfortranarray(image)
    if layout == "strided" and image.ndim:
        return np.repeat(image, 2, axis=0)[::2]
    image.flags.writeable = layout != "locked"
    return image


ANYTHING = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.binary(max_size=9),
    st.lists(st.text(max_size=4), max_size=3),
    st.just(torch.zeros(3, 4, 4)),
)


@given(images())
@settings(QUICK, max_examples=25)
def test_any_array_is_answered_or_refused(predictor, image):
    is_image = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size
    try:
        result = predictor(image, with_probabilities=True)
    except UserError as error:
        assert not is_image
        assert "\n" not in str(error)
        return
    assert is_image
    assert result.labels.shape == image.shape[:2]
    assert result.labels.min() >= 0 and result.labels.max() < len(result.vocabulary)
    assert np.isfinite(result.probabilities).all()
    again = predictor(np.ascontiguousarray(image)).labels
    np.testing.assert_array_equal(again, result.labels)


@given(ANYTHING)
@settings(QUICK, max_examples=15)
def test_what_is_no_array_is_refused(predictor, value):
    with pytest.raises(UserError, match="must be a NumPy array"):
        predictor(value)


def names() -> st.SearchStrategy[Any]:
    """Lists of names, and what is not a list of names."""
    name = st.one_of(
        st.text(max_size=12),
        st.text(max_size=3).map(lambda text: f"<end_of_text>{text}"),
        st.text(min_size=1, max_size=4).map(lambda text: text * 60),
        st.sampled_from(["cat", "Cat", "cat, dog", "&amp;", "&#8203;", "水", "<start_of_text>"]),
    )
    lists = st.lists(name, max_size=5)
    return st.one_of(
        lists,
        lists.map(tuple),
        lists.map(iter),
        lists.map(lambda found: np.array(found, dtype=object)),
        lists.map(set),
        lists.map(lambda found: dict(enumerate(found))),
        arrays.arrays("U2", st.integers(0, 3)),
        ANYTHING,
    )


@given(names())
@settings(QUICK, max_examples=60)
def test_any_names_are_taken_or_refused(predictor, given_names):
    before = predictor.vocabulary
    try:
        predictor.set_vocabulary(given_names)
    except UserError as error:
        assert "\n" not in str(error)
        assert predictor.vocabulary == before
        return
    clip = predictor.model.sem_seg_head.clip
    tokens = clip.prompts.tokenize(predictor.vocabulary)[:, 0]
    assert ((tokens == 49406).sum(dim=1) == 1).all()
    assert ((tokens == 49407).sum(dim=1) == 1).all()
    assert len(predictor.vocabulary) > 0
    result = predictor(np.zeros((8, 8, 3), np.uint8), with_probabilities=True)
    assert result.probabilities.shape == (len(predictor.vocabulary), 8, 8)
