"""A trained model that segments images into any classes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import overload

import numpy as np
import torch
from detectron2.config import CfgNode

from cat_seg.errors import UserError
from cat_seg.hub import pretrained
from cat_seg.inference.classes import Classes, Vocabulary, classes_of, wording_of
from cat_seg.inference.images import WANTED, ImageInput, is_one_image, path_of, to_rgb
from cat_seg.inference.loading import config_of
from cat_seg.inference.result import Result, check_threshold
from cat_seg.modeling.reduction import PixelScores
from cat_seg.predictor import Predictor

logger = logging.getLogger(__name__)

OnError = Callable[[int, UserError], None]


class Segmenter:
    """A model in memory that segments images into the classes named in each call.

    It may be used from several threads, which take turns.
    """

    def __init__(
        self, cfg: CfgNode, vocabulary: Vocabulary | None = None, *, name: str = ""
    ) -> None:
        """Build the model of `cfg` on MODEL.DEVICE and load MODEL.WEIGHTS.

        Args:
            cfg: see `cat_seg.predictor.Predictor`.
            vocabulary: the classes of calls that name none; see `segment`. By default those of
                the config.
            name: what to call the model.

        Raises:
            UserError: see `Predictor`, and `segment` for the vocabulary.
        """
        self._cfg = cfg
        self._predictor = Predictor(cfg)
        self._lock = RLock()
        self._name = name or cfg.MODEL.WEIGHTS
        self._classes = classes_of(self._predictor.vocabulary if vocabulary is None else vocabulary)
        self._predictor.set_vocabulary(self._classes.prompted)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        revision: str | None = None,
        config_file: str | os.PathLike[str] | None = None,
        opts: Sequence[str] = (),
    ) -> Segmenter:
        """Load a model by its name, from a folder or from a file.

        Args:
            source: a name of `cat_seg.list_models()`, a Hugging Face repository "owner/name" (also
                "owner/name@revision"), a folder that a training or `save_pretrained` wrote, or a
                checkpoint file.
            device: "cuda", "cuda:1", "mps" or "cpu"; by default the first of cuda, mps and cpu
                that this machine has.
            revision: branch, tag or commit of a repository.
            config_file: the config of a checkpoint file with no config.yaml beside it.
            opts: config changes, KEY, VALUE, KEY, VALUE, ...; they come last.

        Raises:
            UserError: there is no such model, or it cannot be loaded.
        """
        config = config_of(
            source, device=device, revision=revision, config_file=config_file, opts=opts
        )
        return cls(config.cfg, name=config.name)

    @property
    def name(self) -> str:
        """The name that the model was loaded by."""
        return self._name

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self._predictor.model.parameters()).device

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The classes of calls that name none."""
        return self._classes.names

    @overload
    def segment(  # type: ignore[overload-overlap]  # a path is also an iterable of texts
        self,
        images: ImageInput,
        vocabulary: Vocabulary | None = None,
        *,
        batch_size: int = 1,
        threshold: float | None = None,
        synonyms: str = "first",
        prompts: Sequence[str] = (),
        on_error: OnError | None = None,
    ) -> Result: ...

    @overload
    def segment(
        self,
        images: Iterable[ImageInput],
        vocabulary: Vocabulary | None = None,
        *,
        batch_size: int = 1,
        threshold: float | None = None,
        synonyms: str = "first",
        prompts: Sequence[str] = (),
        on_error: OnError | None = None,
    ) -> Iterator[Result]: ...

    def segment(
        self,
        images: ImageInput | Iterable[ImageInput],
        vocabulary: Vocabulary | None = None,
        *,
        batch_size: int = 1,
        threshold: float | None = None,
        synonyms: str = "first",
        prompts: Sequence[str] = (),
        on_error: OnError | None = None,
    ) -> Result | Iterator[Result]:
        """Segment one image, or any number of them.

        Args:
            images: a path, a PIL image, a uint8 array (H, W, 3) RGB, (H, W) or (H, W, 4), or a
                tensor (3, H, W), uint8 or 0..1; or an iterable of these, which is read as the
                results are.
            vocabulary: the classes: a list of names; a text ("cat, dog", the name of a shipped
                list such as "ade150", or the path of a class list); a Path; or a mapping from
                class names to lists of names, where the highest of the names' probabilities is
                the class's. By default `self.vocabulary`.
            batch_size: images that the model takes at once.
            threshold: pixels of lower confidence (0..1) are unknown; see `Result`.
            synonyms: "first" uses the first of a name's synonyms ("car, automobile"); "average"
                averages the text features of all of them.
            prompts: templates such as "a photo of a {}" in place of the model's own, whose text
                features are averaged; only for a model with one template.
            on_error: called with the position and the error of an image that is skipped; by
                default a warning is logged.

        Returns:
            A `Result` for one image. For an iterable, an iterator of Results in order; images
            that cannot be read or segmented are skipped, and `Result.index` counts them.

        Raises:
            UserError: naming the argument, a bad vocabulary, batch size, threshold or wording; or
                the one image cannot be segmented.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size is {batch_size!r}; give a whole number from 1 on")
        threshold = check_threshold(threshold)
        classes = self._classes if vocabulary is None else classes_of(vocabulary)
        classes = replace(classes, wording=wording_of(synonyms, prompts))
        with self._using(classes):
            pass  # a bad vocabulary is an error of this call, not of the first result
        if is_one_image(images):
            rgb = to_rgb(images, self._cfg.INPUT.IGNORE_EXIF_ORIENTATION)
            [result] = self._answer([_Input(0, path_of(images), rgb)], classes, threshold)
            return result
        if isinstance(images, bytes) or not isinstance(images, Iterable):
            raise UserError(f"images cannot be {type(images).__name__}; {WANTED}")
        return self._stream(images, classes, batch_size, threshold, on_error or _warn)

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, clip: bool = True, license: str | None = None
    ) -> Path:
        """Save the model in a folder that `from_pretrained` loads.

        See `cat_seg.hub.pretrained.save_pretrained` for the files, arguments and errors.
        """
        model = self._predictor.model
        return pretrained.save_pretrained(model, self._cfg, folder, clip=clip, license=license)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        clip: bool = True,
        license: str | None = None,
        message: str | None = None,
    ) -> str:
        """Upload the model to the Hugging Face Hub and return the address of the commit.

        See `save_pretrained`, and `cat_seg.hub.pretrained.push_to_hub` for arguments and errors.
        """
        with TemporaryDirectory() as folder:
            target = Path(folder, repo_id.rpartition("/")[2])  # names the model in its card
            self.save_pretrained(target, clip=clip, license=license)
            return pretrained.push_to_hub(target, repo_id, private=private, message=message)

    def _stream(
        self,
        images: Iterable[ImageInput],
        classes: Classes,
        batch_size: int,
        threshold: float | None,
        on_error: OnError,
    ) -> Iterator[Result]:
        inputs = self._readable(images, on_error)
        while batch := list(islice(inputs, batch_size)):
            try:
                yield from self._answer(batch, classes, threshold)
                continue
            except UserError as error:
                if len(batch) == 1:
                    on_error(batch[0].index, _naming(batch[0], error))
                    continue
            # One of them may be too large, or all together.
            for one in batch:
                try:
                    [result] = self._answer([one], classes, threshold)
                except UserError as error:
                    on_error(one.index, _naming(one, error))
                else:
                    yield result

    def _readable(self, images: Iterable[ImageInput], on_error: OnError) -> Iterator[_Input]:
        for index, image in enumerate(images):
            try:
                rgb = to_rgb(image, self._cfg.INPUT.IGNORE_EXIF_ORIENTATION)
            except UserError as error:
                on_error(index, error if path_of(image) else UserError(f"image {index}: {error}"))
                continue
            yield _Input(index, path_of(image), rgb)

    def _answer(
        self, inputs: Sequence[_Input], classes: Classes, threshold: float | None
    ) -> list[Result]:
        with self._lock, self._using(classes):
            found = self._predictor.scores([one.image for one in inputs], classes.groups)
        return [
            _result(one, scores, classes, threshold)
            for one, scores in zip(inputs, found, strict=True)
        ]

    @contextmanager
    def _using(self, classes: Classes) -> Iterator[None]:
        """Set the model's vocabulary within this context."""
        with self._lock:
            try:
                self._predictor.set_vocabulary(classes.prompted, classes.wording)
                yield
            finally:
                self._predictor.set_vocabulary(self._classes.prompted)


@dataclass(frozen=True)
class _Input:
    """An image (H, W, 3) uint8 RGB with its position and path."""

    index: int
    source: Path | None
    image: np.ndarray


def _result(one: _Input, scores: PixelScores, classes: Classes, threshold: float | None) -> Result:
    winner, confidence, margin, entropy = (tensor.numpy() for tensor in scores)
    return Result(
        winner=winner,
        names=classes.names,
        confidence=confidence,
        margin=margin,
        entropy=entropy,
        image=one.image,
        source=one.source,
        index=one.index,
        threshold=threshold,
    )


def _naming(one: _Input, error: UserError) -> UserError:
    return UserError(f"image {one.index if one.source is None else one.source}: {error}")


def _warn(index: int, error: UserError) -> None:
    logger.warning("skipped: %s", error)
