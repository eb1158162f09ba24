"""The HTTP routes: the Open Inference Protocol over REST, on top of the client library."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mlpserve_client import (
    AsyncClient,
    BatchPrediction,
    InvalidInputError,
    MlpserveError,
    ModelNotFoundError,
    OverloadedError,
)
from mlpserve_model import Store
from mlpserve_model.format.manifest import NAME
from mlpserve_model.process.versions import version_of
from mlpserve_web.codec import (
    ATTRIBUTIONS,
    DEFAULT_OUTPUTS,
    INPUT,
    OUTPUTS,
    InferRequest,
    decode,
    encode,
)
from mlpserve_web.errors import HttpError, http_status
from mlpserve_web.memory import AccountForMemory
from mlpserve_web.openapi import DOCUMENT
from mlpserve_web.origins import OriginPolicy
from mlpserve_web.page import SecurityHeaders, page_routes
from mlpserve_web.requests import Body, Calling, Limits, body_reader, calling_by, number
from mlpserve_web.review import Desk, review_routes
from mlpserve_web.upstream import Upstream
from mlpserve_web.why import attributions

__all__ = ["Page", "application"]

HEADER_LENGTH = "Inference-Header-Content-Length"
PLATFORM = "mlpserve_npz"


class Selection(TypedDict):
    """The model that is asked for, and the version; with neither set, the one being served."""

    model: str
    version: int | None
    alias: str | None


class Page(NamedTuple):
    """What the page shows beside the answers.

    Attributes:
        store: where the versions' reports and weights are; None leaves them out.
        target: the model servers, as the examples of calls name them.
        metrics: where the model servers' metrics are; without any, live traffic is left out.
        dashboard: what shows more of the metrics, linked to; None leaves the link out.
        asks: whether people are asked if answers are right; the model servers need --feedback.
    """

    store: Store | None
    target: str
    metrics: Sequence[str] = ()
    dashboard: str | None = None
    asks: bool = False


def application(
    upstream: Upstream,
    limits: Limits,
    policy: OriginPolicy,
    page: Page,
    desk: Desk | None = None,
) -> Starlette:
    """Return the application; it closes `upstream` when it is shut down.

    Without a `desk` nobody reviews corrections.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await upstream.close()

    calling, body = calling_by(upstream), body_reader(limits)
    handlers = {
        HttpError: _refusal,
        MlpserveError: _failure,
        HTTPException: _not_routed,
        Exception: _fault,
    }
    return Starlette(
        routes=[
            *_protocol_routes(calling, body),
            *review_routes(body, desk),
            *page_routes(calling, body, *page, reviews=desk is not None),
        ],
        middleware=[
            Middleware(AccountForMemory, limits.all_bytes, limits.body_bytes),
            Middleware(SecurityHeaders),
            *policy.middleware(),
        ],
        exception_handlers=handlers,  # type: ignore[arg-type]  # starlette's types: any exception
        lifespan=lifespan,
    )


def _protocol_routes(calling: Calling, body: Body) -> list[BaseRoute]:
    async def infer(request: Request, client: AsyncClient) -> Response:
        return await _infer(request, client, body)

    model = "/v2/models/{model}"
    of_a_model = [
        route
        for path in (model, f"{model}/versions/{{version}}")
        for route in (
            Route(path, calling(_model_metadata)),
            Route(f"{path}/ready", calling(_model_ready)),
            Route(f"{path}/infer", calling(infer), methods=["POST"]),
        )
    ]
    return [
        Route("/openapi.json", _document),
        Route("/v2", _server_metadata),
        Route("/v2/", _server_metadata),  # as the protocol's own OpenAPI description has it
        Route("/v2/health/live", calling(_live)),
        Route("/v2/health/ready", calling(_ready)),
        *of_a_model,
    ]


async def _document(_: Request) -> Response:
    return JSONResponse(DOCUMENT)


async def _server_metadata(_: Request) -> Response:
    extensions = ["binary_tensor_data"]
    return JSONResponse(
        {"name": "mlpserve", "version": version_of("mlpserve"), "extensions": extensions}
    )


async def _live(_: Request, client: AsyncClient) -> Response:
    return await _health(client, live=True)


async def _ready(_: Request, client: AsyncClient) -> Response:
    return await _health(client, live=False)


async def _health(client: AsyncClient, live: bool) -> Response:
    word = "live" if live else "ready"
    healthy = await client.health(live=live)
    return JSONResponse({word: healthy}, 200 if healthy else 503)


async def _model_metadata(request: Request, client: AsyncClient) -> Response:
    served = await client.model(**_selection(request))
    shapes = {"labels": [-1], "probabilities": [-1, len(served.class_names)]}
    inputs = [{"name": INPUT, "datatype": "FP32", "shape": [-1, *served.input_shape]}]
    outputs = [
        {"name": name, "datatype": OUTPUTS[name], "shape": shapes[name]} for name in DEFAULT_OUTPUTS
    ]
    return JSONResponse(
        {
            "name": served.ref.name,
            "versions": [str(served.version)],
            "platform": PLATFORM,
            "inputs": inputs,
            "outputs": outputs,
        }
    )


async def _model_ready(request: Request, client: AsyncClient) -> Response:
    try:
        served = await client.model(**_selection(request))
    except ModelNotFoundError as error:
        return _error(404, str(error))
    name = served.ref.name
    ready = served.state in ("ACTIVE", "STANDBY") and await client.health(model=name)
    return JSONResponse({"name": name, "ready": ready}, 200 if ready else 503)


async def _infer(request: Request, client: AsyncClient, body: Body) -> Response:
    asked = decode(await body(request), _header_length(request))
    answer = await _predicted(asked, client, _selection(request))
    arrays = {
        "labels": answer.labels.astype("<i8"),
        "probabilities": answer.probabilities.astype("<f4", copy=False),
    }
    if ATTRIBUTIONS in asked.outputs:
        arrays[ATTRIBUTIONS] = await attributions(client, asked.instances, answer)
    # Before it is written: JSON takes three times the bytes of its numbers, and so do copies.
    request.state.take(3 * sum(array.nbytes for array in arrays.values()))
    response, header_length = encode(asked, arrays, answer.model.name, answer.model.version)
    if header_length is None:
        return Response(response, media_type="application/json")
    headers = {HEADER_LENGTH: str(header_length)}
    return Response(response, media_type="application/octet-stream", headers=headers)


async def _predicted(
    asked: InferRequest, client: AsyncClient, selection: Selection
) -> BatchPrediction:
    """Classify a batch, or one instance that came without the dimension of the batch."""
    instances = asked.instances
    if instances.ndim == 1:
        return await client.predict_batch(instances[None], **selection)
    try:
        return await client.predict_batch(instances, **selection)
    except InvalidInputError as error:
        if error.field != "instances.shape":
            raise
        as_batch = error
    try:
        return await client.predict_batch(instances[None], **selection)
    except InvalidInputError:
        raise as_batch from None


def _selection(request: Request) -> Selection:
    """Return what the path selects: a model, and a version by number or alias, or the served one.

    Raises:
        HttpError: No model can have this name.

    """
    model, version = request.path_params["model"], request.path_params.get("version")
    if not NAME.fullmatch(model):
        raise HttpError(404, f"there is no model {model[:63]!r}")
    found = None if version is None else number(version)
    return {"model": model, "version": found, "alias": version if found is None else None}


def _header_length(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    length = number(text)
    if length is None:
        raise HttpError(400, f"{HEADER_LENGTH} is {text[:63]!r}, expected a number of bytes")
    return length


async def _refusal(_: Request, error: HttpError) -> Response:
    response = _error(error.status, str(error))
    if error.retry_seconds is not None:
        response.headers["Retry-After"] = str(error.retry_seconds)
    return response


async def _failure(_: Request, error: MlpserveError) -> Response:
    response = _error(http_status(error), str(error))
    if isinstance(error, OverloadedError) and error.retry_after:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return response


async def _not_routed(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _fault(_: Request, error: Exception) -> Response:
    return _error(500, "internal error: see the log")


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)
