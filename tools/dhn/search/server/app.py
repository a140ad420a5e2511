"""The application: the page, and the API that it and other programs ask."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pictures
from dhn.search import answers
from dhn.search.items import SearchError
from dhn.search.server import inputs
from dhn.search.server.about import about_of, report_of
from dhn.search.server.limits import Limits
from dhn.search.server.middleware import (
    AnswerHeaders,
    BodyLimit,
    JsonAnswer,
    RequestError,
    SameSite,
    error_answer,
    received,
)
from dhn.search.server.openapi import MEDIA_TYPES, description
from dhn.search.server.served import Served, Snapshot
from dhn.search.server.work import FullError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

PAGE = Path(__file__).parent / "page"
AT_ONCE = 200  # results that a small index is searched for on the event loop
FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
# the report is a page of its own, with its styles and drawings in it; nothing in it runs
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
IMAGE_HEADERS = {"cache-control": "private, max-age=300", "content-security-policy": "default-src 'none'; sandbox"}

log = logging.getLogger("uvicorn.error")


class Api:
    """The answers to requests. One object serves one index folder."""

    def __init__(self, served: Served, limits: Limits) -> None:
        self.served, self.limits = served, limits

    async def search_by_key(self, request: Request) -> Response:
        """GET /api/search: by the key of an image of the index, or by a code."""
        given = single(request)
        inputs.refuse_unknown(given, "key", "code", "format", *inputs.OPTIONS)
        if ("key" in given) == ("code" in given):
            raise RequestError(400, "expected either key or code, found both or none")
        snapshot = self.served.snapshot()
        if given.get("format", "json") not in ("json", "csv"):
            raise RequestError(400, f"format {given['format']!r}: expected json or csv")
        if "key" in given:
            row = row_of(snapshot, given["key"])
            asked = {"key": given["key"], "labels": snapshot.index.labels_of(row)}
            code = snapshot.index.codes_of([row])
        else:
            code = inputs.code(given["code"], snapshot.index.bits)
            asked = {"code": code[0].tolist()}
        return await self.search(snapshot, asked, code, given)

    async def search_by_upload(self, request: Request) -> Response:
        """POST /api/search: by a picture in the field `image` of a form, or by a code in a JSON object."""
        snapshot = self.served.snapshot()
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind == "application/json":
            given = await inputs.json_object(request)
            inputs.refuse_unknown(given, "code", *inputs.OPTIONS)
            code = inputs.code(given.get("code"), snapshot.index.bits)
            return await self.search(snapshot, {"code": code[0].tolist()}, code, given)
        if kind != "multipart/form-data":
            raise RequestError(
                415, f"content-type {kind or 'missing'}: expected multipart/form-data or application/json"
            )
        if snapshot.encoder is None:
            raise RequestError(409, "this index names no net that makes codes of pictures: ask by key or by code")
        with self.served.pictures.place():  # before the body is read: uploads take memory
            data, name, given = await inputs.form(request, self.limits)
            inputs.options(given, snapshot.index, self.limits)
            inputs.check_picture(data, self.limits)
            try:
                code = await self.served.pictures.run(snapshot.encoder.encode, [data], [name])
            except pictures.PictureError as error:
                raise RequestError(422, str(error)) from None
        return await self.search(snapshot, {"image": name, "code": code[0].tolist()}, code, given)

    async def search(self, snapshot: Snapshot, asked: dict, code: np.ndarray, given: dict) -> Response:
        """The answer to a code (1, K) that was asked for, with the options among the parameters given.

        What was asked is as the command prints it, with the labels of the query or its code besides.
        """
        options = inputs.options(given, snapshot.index, self.limits)
        if snapshot.is_small and options.wanted(AT_ONCE + 1) <= AT_ONCE and not options.unique:
            (results,) = snapshot.index.search(code, options)
        else:
            with self.served.searches.place():
                (results,) = await self.served.searches.run(lambda: snapshot.index.search(code, options))
        if given.get("format", "json") == "csv":
            name = asked.get("key", "code")
            text = answers.csv_text([(name, results)])
            return Response(text.encode(errors="surrogateescape"), media_type="text/csv")
        return JsonAnswer(answers.answer(asked, options, results))

    async def items(self, request: Request) -> Response:
        """GET /api/items: some images of the index, drawn at random by a seed."""
        given = single(request)
        inputs.refuse_unknown(given, "count", "seed", "label")
        index = self.served.snapshot().index
        count = inputs.whole_number("count", given.get("count", 24), 1, self.limits.top)
        seed = inputs.whole_number("seed", given.get("seed", 0), 0, 999_999_999)
        label = inputs.options({"label": given.get("label")}, index, self.limits).label

        def draw() -> list[dict]:
            rows = (
                range(len(index))
                if label is None
                else np.flatnonzero(index.labels[:, index.label_names.index(label)] > 0)
            )
            drawn = [int(rows[place]) for place in random.Random(seed).sample(range(len(rows)), min(count, len(rows)))]
            keys = zip(drawn, index.keys_of(drawn), strict=True)
            return [
                {"row": row, "key": key, "labels": index.labels_of(row), "path": index.path_of(row)}
                for row, key in keys
            ]

        with self.served.searches.place():
            return JsonAnswer({"items": await self.served.searches.run(draw)})

    async def image(self, request: Request) -> Response:
        """GET /api/items/{key}/image: the picture of an item, which the index finds by its key."""
        snapshot = self.served.snapshot()
        row = row_of(snapshot, request.path_params["key"])

        def read() -> tuple[bytes, str]:
            data, media_type = snapshot.index.picture(row)
            return (data, media_type) if media_type in MEDIA_TYPES else (as_png(data), "image/png")

        with self.served.searches.place():
            try:
                data, media_type = await self.served.searches.run(read)
            except (ValueError, OSError) as error:
                log.warning("%s", error)  # with paths of this machine, which are not a client's business
                raise RequestError(404, f"key {request.path_params['key']!r}: its picture is not there") from None
        return Response(data, media_type=media_type, headers=IMAGE_HEADERS)

    async def about(self, request: Request) -> Response:
        """GET /api/about: what the index is."""
        snapshot = self.served.snapshot()
        return JsonAnswer(about_of(snapshot.index) | {"encoder": snapshot.encoder is not None, "top": self.limits.top})

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json: the API."""
        return JsonAnswer(description(self.limits))

    async def report(self, request: Request) -> Response:
        """GET /report: report.html of the run whose codes these are."""
        path = report_of(self.served.snapshot().index)
        if path is None:
            raise RequestError(404, "this index names no run with a report.html")
        return FileResponse(path, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})

    async def health(self, request: Request) -> Response:
        """GET /healthz: 200 while the server answers; `problem` says why a changed index is not used."""
        index = self.served.snapshot().index
        return JsonAnswer({"status": "ok", "images": len(index), "problem": self.served.problem})


def single(request: Request) -> dict[str, str]:
    """The query parameters of a request, each of which may stand once."""
    pairs = request.query_params.multi_items()
    if len(dict(pairs)) != len(pairs):
        raise RequestError(400, "expected each parameter once, found one twice")
    return dict(pairs)


def row_of(snapshot: Snapshot, key: str) -> int:
    """The row of a key. Raises RequestError where the index has no such key."""
    for each in dict.fromkeys((key, received(key))):  # a name may have such a character of its own
        with suppress(SearchError):
            return snapshot.index.row_of(each)
    raise RequestError(404, f"key {key!r}: expected the key of an image of the index")


def as_png(data: bytes) -> bytes:
    """An encoded picture of a type that browsers do not show, as a PNG."""
    import cv2

    return cv2.imencode(".png", pictures.decode(data, None, "image"))[1].tobytes()


async def page(request: Request) -> Response:
    """The page, its styles and its program."""
    return FileResponse(PAGE / FILES[request.url.path], headers={"cache-control": "no-cache"})


def application(served: Served, limits: Limits, names: Collection[str] = ()) -> Starlette:
    """The ASGI application of an index. names: host names that it may be asked by, besides localhost."""
    api = Api(served, limits)
    full = {"retry-after": str(limits.retry_seconds)}

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        return error_answer(error.status, str(error))

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return error_answer(error.status_code, f"{request.method} {request.url.path}: {error.detail}", error.headers)

    async def busy(request: Request, error: Exception) -> Response:
        return error_answer(503, "the server has as much to do as it takes; try again", full)

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it

    async def failed(request: Request, error: Exception) -> Response:
        return error_answer(500, "the server failed on this request; its log says more")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        served.close()

    app = Starlette(
        routes=[
            *(Route(path, page) for path in FILES),
            Route("/api/search", api.search_by_key, methods=["GET"]),
            Route("/api/search", api.search_by_upload, methods=["POST"]),
            Route("/api/items", api.items),
            Route("/api/items/{key:path}/image", api.image),
            Route("/api/about", api.about),
            Route("/openapi.json", api.openapi),
            Route("/report", api.report),
            Route("/healthz", api.health),
        ],
        middleware=[Middleware(AnswerHeaders), Middleware(BodyLimit, limits), Middleware(SameSite, names)],
        exception_handlers={
            RequestError: refused,
            HTTPException: unknown,
            FullError: busy,
            ClientDisconnect: gone,
            Exception: failed,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.limits, app.state.served = limits, served
    return app
