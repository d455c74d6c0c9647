"""The gallery as a web application, for this machine: pages, videos, and the form that keeps a verdict.

It answers only requests that name a host it was given (a page elsewhere cannot reach it under another name), and takes
verdicts only from its own pages. Files are handed out by the rows that name them, never by path.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gallery import pages
from gallery.clip_search import ClipQuery, neighbours
from manifests.dataset import Dataset
from manifests.errors import DwmError, UsageError
from manifests.reviews import give_verdict
from manifests.schema import Clip, Review
from render.contact_sheet import encode_jpeg
from render.video import iter_frames

MAX_FORM_BYTES = 8_192
_STATIC = Path(__file__).parent / "static"
_POLICY = (
    "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class VerdictForm(BaseModel):
    """What the form of a clip's page sends."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    verdict: Review | None = Field(description="None takes a verdict back.")
    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] = Field(
        default="", description="Why."
    )


def make_app(dataset: Dataset, hosts: list[str], auth: str | None = None) -> Starlette:
    """The application.

    Args:
        dataset: what to show; it is read anew for every page.
        hosts: names that requests may call this server by, without port.
        auth: ``user:password`` that it asks for; None asks for nothing.
    """
    gallery = _Gallery(dataset)
    routes = [
        Route("/", gallery.clips),
        Route("/clip/{clip_id}", gallery.clip),
        Route("/clip/{clip_id}/verdict", gallery.verdict, methods=["POST"]),
        Route("/runs", gallery.runs),
        Route("/media/{clip_id}/{column}", gallery.media),
        Route("/poster/{clip_id}", gallery.poster),
        Route("/generated/{generation_id}", gallery.generated),
        Mount("/static", StaticFiles(directory=_STATIC, packages=[("dwm_model", "templates")])),
    ]
    guards = [
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
        Middleware(BaseHTTPMiddleware, dispatch=_guard(auth)),
    ]
    return Starlette(routes=routes, middleware=guards, exception_handlers={DwmError: gallery.problem})  # type: ignore[dict-item]  # its own kind of error


def _guard(auth: str | None) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    """Asks for the password, refuses forms of other pages, and adds the content policy."""
    wanted = None if auth is None else "Basic " + base64.b64encode(auth.encode()).decode()

    async def dispatch(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "")
        if wanted is not None and not hmac.compare_digest(given.encode(), wanted.encode()):
            return Response("password needed", 401, {"www-authenticate": 'Basic realm="dwm"'})
        if request.method == "POST" and request.headers.get("origin") != f"{request.url.scheme}://{request.url.netloc}":
            return Response("verdicts come from the gallery's own pages", 403)
        response = await answer(request)
        response.headers["content-security-policy"] = _POLICY
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "same-origin"
        return response

    return dispatch


class _Gallery:
    """The routes."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def clips(self, request: Request) -> Response:
        return HTMLResponse(pages.clips_page(self._dataset, _query(request)))

    def clip(self, request: Request) -> Response:
        return HTMLResponse(pages.clip_page(self._dataset, request.path_params["clip_id"], _query(request)))

    def runs(self, request: Request) -> Response:
        return HTMLResponse(pages.runs_page(self._dataset, request.query_params.get("benchmark")))

    async def verdict(self, request: Request) -> Response:
        """Keep a verdict, then show the clip after it: the list was asked for before, when this one still fitted."""
        form = _form(await _body(request))
        clip_id, query = request.path_params["clip_id"], _query(request)
        _, after = await run_in_threadpool(neighbours, self._dataset, query, clip_id)
        await run_in_threadpool(give_verdict, self._dataset, clip_id, form.verdict, form.reason)
        target = f"/clip/{after or clip_id}{query.address()}"
        return RedirectResponse(target, 303)

    def media(self, request: Request) -> Response:
        column = request.path_params["column"]
        path = _row(self._dataset, request).model_dump().get(column) if column in Clip.MEDIA_COLUMNS else None
        if path is None:
            raise DwmError(f"clip {request.path_params['clip_id']}: has no video {column}")
        return FileResponse(self._dataset.inside(path), media_type="video/mp4")

    def generated(self, request: Request) -> Response:
        row = self._dataset.generations.get(request.path_params["generation_id"])
        if row.path is None:
            raise DwmError(f"generation {row.generation_id}: has no video ({row.reason})")
        return FileResponse(self._dataset.inside(row.path), media_type="video/mp4")

    def poster(self, request: Request) -> Response:
        row = _row(self._dataset, request)
        path = row.interaction_path or row.static_path
        if path is None:
            raise DwmError(f"clip {row.clip_id}: has no video")
        file = self._dataset.inside(path)
        return Response(_poster(file, file.stat().st_mtime_ns), media_type="image/jpeg")

    async def problem(self, _: Request, error: DwmError) -> Response:
        status = 400 if isinstance(error, UsageError) else 404
        return HTMLResponse(await run_in_threadpool(pages.problem_page, self._dataset, str(error)), status)


def _query(request: Request) -> ClipQuery:
    try:
        return ClipQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise UsageError(f"page '{request.query_params.get('page')}': give a number from 1") from error


def _row(dataset: Dataset, request: Request) -> Clip:
    return dataset.clips.get(request.path_params["clip_id"])


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise UsageError(f"the form has more than {MAX_FORM_BYTES} bytes; give a shorter reason")
    return body


def _form(body: bytes) -> VerdictForm:
    fields = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    if fields.get("verdict") == "none":
        fields.pop("verdict")
    try:
        return VerdictForm.model_validate({"verdict": None, **fields})
    except ValidationError as error:
        raise UsageError(f"verdict '{fields.get('verdict')}': give accepted, rejected or none") from error


@lru_cache(maxsize=512)
def _poster(path: Path, changed_ns: int) -> bytes:  # noqa: ARG001 - a changed file is another poster
    frames = iter_frames(path)
    try:
        return encode_jpeg(next(frames), max_width=360)
    finally:
        frames.close()
