"""The versions of one model as messages: what the store holds and what is in memory."""

import heapq
import itertools
import operator
from collections.abc import Iterator

from mlpserve.v1 import model_pb2
from mlpserve_model import CorruptVersion, Manifest, StoreError, VersionNotFound
from mlpserve_server.dataplane import codec
from mlpserve_server.dataplane.listing import Listing
from mlpserve_server.dataplane.query import Selection
from mlpserve_server.errors import ModelNotFound, NotReady
from mlpserve_server.lifecycle.manager import ModelManager

__all__ = ["describe_model", "describe_selected", "descriptions"]

VersionState = model_pb2.ModelVersion.State
_KINDS = {
    "binary": model_pb2.InputValues.KIND_BINARY,
    "raw": model_pb2.InputValues.KIND_RAW,
    "scaled": model_pb2.InputValues.KIND_SCALED,
    "real": model_pb2.InputValues.KIND_REAL,
}


def describe_model(manager: ModelManager) -> model_pb2.ModelVersion:
    """Return the served version of a model, or why there is none."""
    try:
        return _describe(manager, manager.get().manifest)
    except NotReady as error:
        state = VersionState.STATE_FAILED if manager.refusal else VersionState.STATE_UNSPECIFIED
        if manager.loader.loading is not None:
            state = VersionState.STATE_LOADING
        return model_pb2.ModelVersion(
            ref=model_pb2.ModelRef(name=manager.store.model),
            state=state,
            state_reason=str(error),
        )


def describe_selected(manager: ModelManager, chosen: Selection) -> model_pb2.ModelVersion:
    """Return the version that is selected; raises ModelNotFound or NotReady."""
    version = manager.aliases.get(chosen.alias) if chosen.alias is not None else chosen.version
    if version is None:
        # Nothing is selected, or an unknown alias: `get` answers or raises.
        return _describe(manager, manager.get(chosen.version, chosen.alias).manifest)
    try:
        described = _described(manager, version)
        if described is None and manager.store_state.is_unreachable():
            raise StoreError(f"there is nothing in {manager.store}")
    except StoreError as error:
        raise NotReady("the store cannot be read at the moment") from error
    if described is None:
        raise ModelNotFound(f"{manager.store.model} has no version {version}")
    return described


def descriptions(
    manager: ModelManager, listing: Listing, before: float
) -> Iterator[model_pb2.ModelVersion]:
    """Give the versions below a number, in the store or in memory, newest first.

    Raises StoreError, also for a store that is not there: it is not an empty one.
    """
    if manager.store_state.is_unreachable():
        raise StoreError(f"there is nothing in {manager.store}")
    stored = listing.below(manager.store, before)
    in_memory = (version for version in reversed(manager.loaded) if version < before)
    merged = heapq.merge(stored, in_memory, key=operator.neg)
    for version, _ in itertools.groupby(merged):
        # None: it was removed after the folder was listed.
        if (described := _described(manager, version)) is not None:
            yield described


def _described(manager: ModelManager, version: int) -> model_pb2.ModelVersion | None:
    """Return the version as a message, None when it does not exist; raises StoreError.

    A version in memory is described as it answers, whatever the store holds by now.
    """
    if model := manager.in_memory(version):
        return _describe(manager, model.manifest)
    try:
        return _describe(manager, manager.store.manifest(version))
    except VersionNotFound:
        return None
    except CorruptVersion as error:
        ref = model_pb2.ModelRef(name=manager.store.model, version=version)
        return model_pb2.ModelVersion(
            ref=ref, state=VersionState.STATE_FAILED, state_reason=str(error)
        )


def _describe(manager: ModelManager, manifest: Manifest) -> model_pb2.ModelVersion:
    state, reason = _state(manager, manifest)
    aliases = manager.aliases.items()
    is_real = manifest.signature.input_kind == "real"
    message = model_pb2.ModelVersion(
        ref=codec.model_ref(manifest),
        state=state,
        state_reason=reason,
        aliases=sorted(alias for alias, target in aliases if target == manifest.version),
        input_shape=manifest.signature.input_shape,
        class_names=manifest.signature.class_names,
        metrics=dict(manifest.metrics),
        input_maximum=0 if is_real else manifest.signature.input_maximum,
        input_kind=model_pb2.INPUT_KIND_REAL if is_real else model_pb2.INPUT_KIND_PIXELS,
        output_kind=codec.output_kind(manifest),
    )
    message.create_time.FromDatetime(manifest.created)
    if values := manifest.input_values:
        kind = _KINDS.get(values.kind, model_pb2.InputValues.KIND_UNSPECIFIED)
        message.input_values.CopyFrom(
            model_pb2.InputValues(kind=kind, low=values.low, high=values.high)
        )
    return message


def _state(manager: ModelManager, manifest: Manifest) -> tuple[VersionState.ValueType, str]:
    version, digest = manifest.version, manifest.own_digest
    current = manager.current
    if current is not None and current.manifest.own_digest == digest:
        return VersionState.STATE_ACTIVE, "answers calls that select nothing"
    if manifest.gate.verdict == "REJECTED":
        return VersionState.STATE_REJECTED, "; ".join(manifest.gate.reasons)
    if reason := manager.loader.refusals.of(version, digest):
        return VersionState.STATE_FAILED, reason
    if manager.loader.loading == version:
        return VersionState.STATE_LOADING, "being read and verified"
    where = "in memory" if manager.in_memory(version) else "loaded when it is selected"
    return VersionState.STATE_STANDBY, where
