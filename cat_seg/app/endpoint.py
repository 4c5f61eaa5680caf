"""HTTP routes beside the page: POST /segment for programs, and the page's downloads."""

from __future__ import annotations

import logging
import secrets
import tempfile
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.routing import Route

from cat_seg.app.answers import Answers
from cat_seg.app.drawing import download
from cat_seg.app.limits import read_list, read_names
from cat_seg.app.worker import Busy, Worker, title_of
from cat_seg.errors import UserError, explain, printable
from cat_seg.inference import Result, Segmenter

logger = logging.getLogger(__name__)

FIELDS = ("image", "classes", "list", "model", "format", "threshold", "opacity")
FORMATS = ("json", "mask", "overlay")


class Endpoint:
    """Answers requests with a worker's models."""

    def __init__(self, worker: Worker, answers: Answers) -> None:
        """Compute with `worker`, and serve what `answers` keeps."""
        self._worker = worker
        self._answers = answers

    def routes(self) -> list[Route]:
        """Return the routes, for a FastAPI app."""
        return [
            Route("/segment", self.segment, methods=["POST"]),
            Route("/files/{key}/{name}", self.file, methods=["GET"]),
        ]

    async def segment(self, request: Request) -> Response:
        """Segment the image of a multipart form; see docs/page.md for its fields."""
        try:
            async with request.form(max_files=1, max_fields=len(FIELDS)) as form:
                return await run_in_threadpool(self._answer, form)
        except Exception as error:
            return _failure(error)

    async def file(self, request: Request) -> Response:
        """Return a file of a kept answer: the mask, the overlay or the class list."""
        try:
            return await run_in_threadpool(self._file, request)
        except Exception as error:
            return _failure(error)

    def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        threshold = _number(request.query_params, "threshold", 0.0)
        opacity = _number(request.query_params, "opacity", 0.55)
        result = self._answers.get(request.path_params["key"]).with_threshold(threshold)
        return _attachment(*download(result, name, opacity), name)

    def _answer(self, form: FormData) -> Response:
        strange = sorted(set(form) - set(FIELDS))
        if strange:
            raise UserError(f"there is no field {strange[0]!r}; choose {', '.join(FIELDS)}")
        upload = form.get("image")
        if not isinstance(upload, UploadFile):
            raise UserError('no image: send it as a file, as with curl -F "image=@street.jpg"')
        kind = _text(form, "format") or "json"
        if kind not in FORMATS:
            raise UserError(f"format is {kind!r}; choose {', '.join(FORMATS)}")
        threshold = _number(form, "threshold", 0.0)
        opacity = _number(form, "opacity", 0.55)
        model = self._model(_text(form, "model"))
        if _text(form, "list"):
            names = read_list(_text(form, "list"))
        else:
            names = read_names(_text(form, "classes"), self._worker.limits)
        result = self._compute(model, upload, names).with_threshold(threshold)
        if kind == "json":
            title = Path(upload.filename or "").name
            return JSONResponse({"model": title_of(model), **result.to_dict(), "source": title})
        name = {"mask": "mask.png", "overlay": "overlay.png"}[kind]
        return _attachment(*download(result, name, opacity), name)

    def _compute(self, model: Segmenter, upload: UploadFile, names: list[str]) -> Result:
        # Never named by the client: its name could hold anything.
        with tempfile.NamedTemporaryFile(prefix="image") as file:
            while block := upload.file.read(2**20):
                file.write(block)
            file.flush()
            path = Path(file.name)
            try:
                with self._worker.job(secrets.token_hex()) as canceled:
                    return self._worker.segment(model, path, names, canceled)
            except Busy:
                raise
            except UserError as error:
                raise UserError(str(error).replace(path.name, upload.filename or "")) from error

    def _model(self, name: str) -> Segmenter:
        models = {title_of(model): model for model in self._worker.models}
        if name and name not in models:
            raise UserError(f"there is no model {name!r}; choose {', '.join(models)}")
        return models[name] if name else self._worker.models[0]


def _text(form: FormData, key: str) -> str:
    value = form.get(key, "")
    if not isinstance(value, str):
        raise UserError(f"the field {key!r} must be a text, not a file")
    return value.strip()


def _number(values: Any, key: str, default: float) -> float:
    """Return a number from 0 to 1 of a form or a query.

    Raises:
        UserError: it is none.
    """
    text = values.get(key, "")
    try:
        number = float(text) if text else default
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise UserError(f"{key} is {text!r}; give a number from 0 to 1")
    return number


def _attachment(content: bytes, media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=media_type, headers=headers)


def _failure(error: Exception) -> JSONResponse:
    """Return one line about an error: 400 bad request, 503 busy, 500 a bug."""
    detail = getattr(error, "detail", None)  # of a form that Starlette cannot read
    reason = printable(detail) if detail else explain(error)
    if reason is None:
        logger.exception("the endpoint failed")
    status = 503 if isinstance(error, Busy) else 500 if reason is None else 400
    return JSONResponse({"error": reason or "the server failed; see its log"}, status)
