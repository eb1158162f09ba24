"""What the page asks for: the versions, an answer with the input as the network sees it, reports.

The page itself is a folder of plain files without anything to build. Its interface is its own
and may change with it; programs use the Open Inference Protocol beside it.
"""

import asyncio
import io
import logging
import math
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlpserve_client import AsyncClient, ModelVersion
from mlpserve_client._images import fit, open_image, picture_shape
from mlpserve_model import Store, StoreError, VersionNotFound
from mlpserve_web import feedback
from mlpserve_web.errors import HttpError
from mlpserve_web.requests import Body, Calling, number
from mlpserve_web.traffic import read_traffic
from mlpserve_web.why import Explainer

__all__ = ["SecurityHeaders", "page_routes"]

log = logging.getLogger(__name__)

_FOLDER = str(files("mlpserve_web") / "static")
MAX_REPORT_BYTES = 64 << 20
# Of pictures; others need further programs, or decoders that few have tried to break.
PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# A file of 17 KB may have 64 million pixels, each of which takes 8 bytes, and 16 in WebP.
MAX_PIXELS = 2**24
# Of a JPEG, each of which goes over all pixels. Progressive ones have about ten.
MAX_SCANS = 100
_JPEG, _SCAN = b"\xff\xd8", b"\xff\xda"
# Of each number in JSON, with the space around it.
MAX_NUMBER_BYTES = 64
_one_picture = asyncio.Lock()
_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
# A report is one file, with its style and pictures inside; it runs no script.
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"


def page_routes(
    calling: Calling,
    body: Body,
    store: Store | None,
    target: str,
    metrics: Sequence[str],
    dashboard: str | None,
    asks: bool,
    reviews: bool,
) -> list[BaseRoute]:
    """Return the routes of the page and of what it asks for.

    Args:
        calling: makes an endpoint of a function that gets the caller's client.
        body: reads a request's body within the limits.
        store: where the reports and weights are; None leaves them out.
        target: the model servers, as the page's examples of calls name them.
        metrics: where the model servers' metrics are; none leaves live traffic out.
        dashboard: what shows more of the metrics, for a link; None leaves it out.
        asks: whether people are asked if answers are right.
        reviews: whether corrections are reviewed at /review.

    """

    async def models(_: Request, client: AsyncClient) -> Response:
        versions = [_described(version, store is not None) for version in await client.versions()]
        shown = {
            "feedback": asks,
            "review": reviews,
            "reports": store is not None,
            "traffic": bool(metrics),
        }
        places = {"target": target, "dashboard": dashboard}
        return JSONResponse({"versions": versions} | shown | places)

    explainer = Explainer(store)

    async def classify(request: Request, client: AsyncClient) -> Response:
        return await _classify(request, client, body, explainer)

    async def said(request: Request, client: AsyncClient) -> Response:
        if not asks:
            raise HttpError(404, "--feedback was not given: nobody is asked")
        class_name, right = feedback.truth(*map(request.query_params.get, ("said", "class")))
        model, instance = await _instance(request, client, body)
        new = await feedback.report(client, instance, model.version, class_name, right)
        return JSONResponse({"recorded": new})

    async def traffic(_: Request, client: AsyncClient) -> Response:
        if not metrics:
            raise HttpError(404, "no --metrics was given: there is no live traffic")
        await client.model()  # who may not call the servers may not see what they do either
        return JSONResponse(await read_traffic(metrics))

    async def report(request: Request, client: AsyncClient) -> Response:
        await client.model()  # who may not call the servers may not read their reports either
        document = await _report(store, request.path_params["version"])
        request.state.take(len(document))
        headers = {"Content-Security-Policy": _REPORT_POLICY}
        return Response(document, media_type="text/html; charset=utf-8", headers=headers)

    return [
        Route("/api/models", calling(models)),
        Route("/api/classify", calling(classify), methods=["POST"]),
        Route("/api/feedback", calling(said), methods=["POST"]),
        Route("/api/traffic", calling(traffic)),
        Route("/api/reports/{version}", calling(report)),
        Route("/", _index),
        Mount("/page", StaticFiles(directory=_FOLDER)),
    ]


class SecurityHeaders:
    """Adds what a browser needs to know to every answer: load nothing from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and the answer back with the headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"] = list(message["headers"])
                if not any(name == b"content-security-policy" for name, _ in headers):
                    headers.append((b"content-security-policy", _POLICY.encode()))
                headers.append((b"x-content-type-options", b"nosniff"))
                headers.append((b"referrer-policy", b"no-referrer"))
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _index(_: Request) -> Response:
    return FileResponse(f"{_FOLDER}/index.html")


def _described(version: ModelVersion, reports: bool) -> dict[str, Any]:
    return {
        "name": version.ref.name,
        "version": version.version,
        "digest": version.ref.digest,
        "state": version.state,
        "reason": version.reason,
        "aliases": version.aliases,
        "input_shape": version.input_shape,
        "input_kind": version.input_kind,
        "created": version.created.isoformat(),
        "metrics": dict(version.metrics),
        "report": f"api/reports/{version.version}" if reports else None,
    }


async def _instance(
    request: Request, client: AsyncClient, body: Body
) -> tuple[ModelVersion, NDArray[np.float32]]:
    """Return the version that is asked for, and the request's input as it takes it."""
    model = await client.model(version=_version(request))
    data = await body(request)
    if request.headers.get("Content-Type", "").startswith("application/json"):
        instance = _numbers(data, model.input_shape)
    else:
        # Decoding a picture takes milliseconds, in which others would wait; and memory, so one
        # after the other.
        async with _one_picture:
            instance = await asyncio.to_thread(_picture, data, picture_shape(model))
    return model, instance


async def _classify(
    request: Request, client: AsyncClient, body: Body, explainer: Explainer
) -> Response:
    model, instance = await _instance(request, client, body)
    began = time.perf_counter()
    answer = await client.predict(instance, version=model.version)
    milliseconds = (time.perf_counter() - began) * 1000
    return JSONResponse(
        {
            "model": answer.model.name,
            "version": answer.model.version,
            "label": answer.label,
            "name": answer.name,
            "class_names": answer.class_names,
            "probabilities": answer.probabilities.tolist(),
            "output_kind": answer.output_kind,
            "milliseconds": milliseconds,
            "instance": {"shape": model.input_shape, "values": instance.ravel().tolist()},
            "explanation": await explainer.explain(client, instance, answer),
        }
    )


def _version(request: Request) -> int | None:
    text = request.query_params.get("version")
    if text is None:
        return None
    version = number(text)
    if version is None:
        raise HttpError(400, f"version {text[:63]!r}, expected a number")
    return version


def _numbers(data: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    limit = MAX_NUMBER_BYTES * (math.prod(shape) + 1)
    if len(data) > limit:
        raise HttpError(413, f"{len(data)} bytes, expected at most {limit} for {shape}")
    try:
        with np.errstate(over="ignore"):  # infinite, and refused by the server
            values = np.asarray(orjson.loads(data), np.float32)
    except (orjson.JSONDecodeError, ValueError, TypeError, OverflowError) as error:
        raise HttpError(400, "the body is not a JSON array of numbers") from error
    if values.size != math.prod(shape):
        raise HttpError(400, f"{values.size} numbers, expected {math.prod(shape)}")
    return values.reshape(shape)


def _picture(data: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if data.startswith(_JPEG) and (scans := data.count(_SCAN)) > MAX_SCANS:
        raise HttpError(400, f"the picture has {scans} scans, expected at most {MAX_SCANS}")
    return fit(open_image(io.BytesIO(data), "the picture", MAX_PIXELS, PICTURES), shape)


async def _report(store: Store | None, text: str) -> bytes:
    if store is None:
        raise HttpError(404, "no --store was given: there are no reports")
    version = number(text)
    if version is None:
        raise HttpError(404, f"there is no version {text[:63]!r}")
    try:
        return await asyncio.to_thread(store.document, version, "report.html", MAX_REPORT_BYTES)
    except VersionNotFound as error:
        raise HttpError(404, str(error)) from error
    except StoreError as error:  # its text names places that are not the caller's business
        log.warning("cannot read a report", extra={"version": version, "reason": str(error)})
        raise HttpError(500, "the report cannot be read: see the log") from error
