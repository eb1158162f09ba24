"""The methods of every service: what answers each, and on which pool it runs."""

from collections.abc import Callable, Mapping
from concurrent import futures
from functools import partial
from typing import NamedTuple

from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.dataplane.fair_shares import INFER_NAME, SELECTED_NAME, NamePath
from mlpserve_server.dataplane.oip_catalog import UNSUPPORTED, OpenCatalog, refuse
from mlpserve_server.security.credentials import Credentials, SourceOf
from mlpserve_server.security.scope import Scope
from mlpserve_server.transport.call_pool import CallPool
from mlpserve_server.transport.fair_pools import FairPool
from mlpserve_server.transport.handlers import (
    Behaviour,
    Handler,
    ReadScope,
    pooled_handler,
    predict,
    report,
    run_to_end,
    scope_reader,
    scoped,
    watch_handler,
    without_context,
)
from mlpserve_server.transport.pools import MAX_CALLS, PatientPool
from mlpserve_server.transport.services import (
    COPIES,
    EXPLANATION_SERVICE,
    FEEDBACK_SERVICE,
    INFERENCE_SERVICE,
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    SMALL_BYTES,
    Backend,
    readiness_of,
)

__all__ = ["Method", "Pools", "methods_by_service"]

# Refusals wait for nothing.
REFUSAL_THREADS = 2
# Calls of ModelService and probes that are answered or unread, each.
MAX_OTHER_CALLS = 128

# Predictions at once, and batches. One computes while another is in the interpreter; more take its
# lock from each other: with 8, a flooded server answered a third of the calls a second.
COMPUTED_AT_ONCE = 2

# Calls beyond the limit of a pool whose requests are read to judge them.
MAX_JUDGED_CALLS = 128


class Method(NamedTuple):
    """A method of a service.

    Attributes:
        handler: Answers calls.
        pool: Where it runs.
        beyond: Answers calls that come while the pool is full; None to refuse them unread.

    """

    handler: Handler
    pool: PatientPool
    beyond: "Handler | None" = None  # the alias is a text


class Pools:
    """The threads of the standard transport: what waits in one keeps no other from answering."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        at_once = COMPUTED_AT_ONCE
        self.predictions = CallPool("predict", limits, lambda: limits.queue.limit, at_once)
        # Batches may wait for memory, and single predictions not for them.
        self.batches = CallPool("batch", limits, lambda: limits.queue.limit, at_once)
        # Of several models: calls beyond the limit, which are admitted by their models.
        self.judged = CallPool("judge", limits, lambda: MAX_JUDGED_CALLS)
        shares, shared = limits.shares, (self.predictions, self.batches)
        self.fair = {pool: FairPool(shares, pool) for pool in shared} if shares else {}
        # A store that hangs keeps the threads of ModelService.
        self.models = CallPool("models", limits, lambda: MAX_OTHER_CALLS)
        # A place for reports that hangs keeps these.
        self.reports = CallPool("report", limits, lambda: MAX_OTHER_CALLS)
        self.probes = CallPool("probe", limits, lambda: MAX_OTHER_CALLS)
        self.checks = CallPool("check", limits, lambda: MAX_CALLS)
        self.watches = CallPool("watches", limits, lambda: MAX_CALLS)
        self.reflection = CallPool("reflect", limits, lambda: MAX_CALLS)
        self.refusals = futures.ThreadPoolExecutor(REFUSAL_THREADS, thread_name_prefix="refuse")

    @property
    def calls(self) -> tuple[CallPool, ...]:
        """Those that know what has become of their calls."""
        named = self.predictions, self.batches, self.judged, self.models, self.reports, self.probes
        return *named, self.checks, self.watches, self.reflection

    @property
    def busy(self) -> bool:
        """Whether any of these holds a call."""
        return any(pool.busy for pool in self.calls)

    def shut_down(self) -> None:
        """End the threads."""
        for pool in (*self.calls, self.refusals):
            pool.shutdown(wait=False, cancel_futures=True)


def methods_by_service(
    backend: Backend, pools: Pools, credentials: Credentials
) -> Mapping[str, Mapping[str, Method]]:
    """Return the methods of each service by their names."""
    scope = scope_reader(credentials.scope)
    return {
        PREDICTION_SERVICE: _prediction_service(backend, pools, scope),
        MODEL_SERVICE: _model_service(backend, pools, scope),
        INFERENCE_SERVICE: _inference_service(backend, pools, scope),
        EXPLANATION_SERVICE: _explanation_service(backend, pools, scope),
        FEEDBACK_SERVICE: _feedback_service(backend, pools, credentials.source, scope),
        HEALTH_SERVICE: _health_service(backend, pools),
    }


def _prediction_service(backend: Backend, pools: Pools, scope: ReadScope) -> dict[str, Method]:
    data, reserved = backend.data, COPIES * pools.limits.max_request
    single = predict(data, pools.limits, scope)
    batch = run_to_end(data.batch_predict, scope)
    return {
        "Predict": _fair(single, pools, pools.predictions, SELECTED_NAME),
        "BatchPredict": _fair(batch, pools, pools.batches, SELECTED_NAME, reserved),
    }


def _model_service(backend: Backend, pools: Pools, scope: ReadScope) -> dict[str, Method]:
    catalog = backend.catalog
    return {
        "GetModelVersion": _scoped(catalog.get_model_version, pools.models, scope),
        "ListModelVersions": _scoped(catalog.list_model_versions, pools.models, scope),
        "ListModels": _scoped(catalog.list_models, pools.models, scope),
    }


def _inference_service(backend: Backend, pools: Pools, scope: ReadScope) -> dict[str, Method]:
    data, health = backend.data, backend.health
    catalog = OpenCatalog(
        backend.catalog, lambda name: health.serving(readiness_of(name)), data.max_batch
    )
    infer, reserved = run_to_end(data.infer_in_steps, scope), COPIES * pools.limits.max_request
    return {
        "ModelInfer": _fair(infer, pools, pools.batches, INFER_NAME, reserved),
        "ServerLive": _plain(catalog.server_live, pools.probes),
        "ServerReady": _plain(catalog.server_ready, pools.probes),
        "ServerMetadata": _plain(catalog.server_metadata, pools.probes),
        "ModelReady": _scoped(catalog.model_ready, pools.models, scope),
        "ModelMetadata": _scoped(catalog.model_metadata, pools.models, scope),
        "ModelConfig": _scoped(catalog.model_config, pools.models, scope),
        "RepositoryIndex": _scoped(catalog.repository_index, pools.models, scope),
        **{name: _plain(partial(refuse, name), pools.probes) for name in UNSUPPORTED},
    }


def _explanation_service(backend: Backend, pools: Pools, scope: ReadScope) -> dict[str, Method]:
    explain = run_to_end(backend.data.explain, scope)
    reserved = COPIES * pools.limits.max_request
    return {"Explain": _fair(explain, pools, pools.batches, SELECTED_NAME, reserved)}


def _feedback_service(
    backend: Backend, pools: Pools, source_of: SourceOf, scope: ReadScope
) -> dict[str, Method]:
    answer = report(backend.feedback, source_of, scope)
    handler = pooled_handler(answer, pools.reports, COPIES * pools.limits.max_request)
    return {"Report": Method(handler, pools.reports)}


def _health_service(backend: Backend, pools: Pools) -> dict[str, Method]:
    health = backend.health
    return {
        "Check": _plain(health.check, pools.checks),
        "Watch": Method(watch_handler(health, pools.watches), pools.watches),
    }


def _fair(
    answer: Behaviour, pools: Pools, pool: CallPool, path: NamePath, reserved: int = 0
) -> Method:
    """Return a method that several models have their shares of."""
    fair = pools.fair.get(pool)
    if fair is None:
        return Method(pooled_handler(answer, pool, reserved), pool)
    counted, judged = partial(fair.counted, path), partial(fair.judged, path)
    handler = pooled_handler(answer, pool, reserved, counted)
    beyond = pooled_handler(answer, pools.judged, reserved, judged, pool.turns)
    return Method(handler, pool, beyond)


def _scoped(answer: Callable[[bytes, Scope], bytes], pool: CallPool, scope: ReadScope) -> Method:
    return Method(pooled_handler(scoped(answer, scope), pool, limit=SMALL_BYTES), pool)


def _plain(answer: Callable[[bytes], bytes], pool: CallPool) -> Method:
    return Method(pooled_handler(without_context(answer), pool, limit=SMALL_BYTES), pool)
