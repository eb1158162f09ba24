"""ModelService, bytes in and bytes out: the versions in the store and their state here."""

import heapq
import itertools
import operator
from collections.abc import Iterator

from mlpserve.v1 import model_pb2
from mlpserve_model import CorruptVersion, Manifest, StoreError, VersionNotFound
from mlpserve_server.dataplane import codec
from mlpserve_server.dataplane.query import Selection
from mlpserve_server.errors import InvalidInput, ModelNotFound, NotReady
from mlpserve_server.lifecycle.manager import ModelManager

__all__ = ["Catalog"]

DEFAULT_PAGE, MAX_PAGE = 50, 200

VersionState = model_pb2.ModelVersion.State
_KINDS = {
    "binary": model_pb2.InputValues.KIND_BINARY,
    "raw": model_pb2.InputValues.KIND_RAW,
    "scaled": model_pb2.InputValues.KIND_SCALED,
    "real": model_pb2.InputValues.KIND_REAL,
}


class Catalog:
    """Describes versions by what the manager serves and the store holds."""

    def __init__(self, manager: ModelManager) -> None:
        self.manager = manager

    def get_model_version(self, request: bytes) -> bytes:
        """Answer a GetModelVersionRequest, both as bytes."""
        message = codec.parse(model_pb2.GetModelVersionRequest, request)
        described = self.describe(codec.selection(message.model))
        return model_pb2.GetModelVersionResponse(model_version=described).SerializeToString()

    def list_model_versions(self, request: bytes) -> bytes:
        """Answer a ListModelVersionsRequest, both as bytes; the token is the last number given."""
        message = codec.parse(model_pb2.ListModelVersionsRequest, request)
        if message.name:
            codec.check_name(message.name, self.manager.store.model)
        size = _page_size(message.page_size)
        before = _below(message.page_token)
        try:
            # One more than is given tells whether there is another page.
            page = list(itertools.islice(self._descriptions(before), size + 1))
        except StoreError as error:
            raise NotReady("the store cannot be read at the moment") from error
        token = str(page[size - 1].ref.version) if len(page) > size else ""
        response = model_pb2.ListModelVersionsResponse(next_page_token=token)
        response.model_versions.extend(page[:size])
        return response.SerializeToString()

    def list_models(self, request: bytes) -> bytes:
        """Answer a ListModelsRequest, both as bytes; the token is the last name given."""
        message = codec.parse(model_pb2.ListModelsRequest, request)
        _page_size(message.page_size)
        names = [n for n in [self.manager.store.model] if n > message.page_token]
        models = map(self.describe_model, names)
        return model_pb2.ListModelsResponse(models=models).SerializeToString()

    def describe_model(self, name: str) -> model_pb2.ModelVersion:
        """Return the served version of this model, or why there is none."""
        try:
            return self._describe(self.manager.get().manifest)
        except NotReady as error:
            loading = self.manager.loader.loading is not None
            return model_pb2.ModelVersion(
                ref=model_pb2.ModelRef(name=name),
                state=VersionState.STATE_LOADING if loading else VersionState.STATE_UNSPECIFIED,
                state_reason=str(error),
            )

    def describe(self, chosen: Selection) -> model_pb2.ModelVersion:
        """Return the version that is selected; raises ModelNotFound or NotReady."""
        manager = self.manager
        if chosen.name is not None:
            codec.check_name(chosen.name, manager.store.model)
        version = manager.aliases.get(chosen.alias) if chosen.alias is not None else chosen.version
        if version is None:
            # Nothing is selected, or an unknown alias: `get` answers or raises.
            return self._describe(manager.get(chosen.version, chosen.alias).manifest)
        try:
            described = self._described(version)
            if described is None and manager.store_state.is_away():
                raise StoreError(f"there is nothing in {manager.store}")
        except StoreError as error:
            raise NotReady("the store cannot be read at the moment") from error
        if described is None:
            raise ModelNotFound(f"{manager.store.model} has no version {version}")
        return described

    def _descriptions(self, before: float) -> Iterator[model_pb2.ModelVersion]:
        """Give the versions below a number, in the store or in memory, newest first.

        Raises StoreError, also for a store that is not there: it is not an empty one.
        """
        manager = self.manager
        if manager.store_state.is_away():
            raise StoreError(f"there is nothing in {manager.store}")
        stored = (version for version, _ in manager.store.newest(before))
        in_memory = (version for version in reversed(manager.loaded) if version < before)
        merged = heapq.merge(stored, in_memory, key=operator.neg)
        for version, _ in itertools.groupby(merged):
            # None: it was removed after the folder was listed.
            if (described := self._described(version)) is not None:
                yield described

    def _described(self, version: int) -> model_pb2.ModelVersion | None:
        """Return the version as a message, None when it does not exist; raises StoreError.

        A version in memory is described as it answers, whatever the store holds by now.
        """
        if model := self.manager.in_memory(version):
            return self._describe(model.manifest)
        try:
            return self._describe(self.manager.store.manifest(version))
        except VersionNotFound:
            return None
        except CorruptVersion as error:
            ref = model_pb2.ModelRef(name=self.manager.store.model, version=version)
            return model_pb2.ModelVersion(
                ref=ref, state=VersionState.STATE_FAILED, state_reason=str(error)
            )

    def _describe(self, manifest: Manifest) -> model_pb2.ModelVersion:
        state, reason = self._state(manifest)
        aliases = self.manager.aliases.items()
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
        )
        message.create_time.FromDatetime(manifest.created)
        if values := manifest.input_values:
            kind = _KINDS.get(values.kind, model_pb2.InputValues.KIND_UNSPECIFIED)
            message.input_values.CopyFrom(
                model_pb2.InputValues(kind=kind, low=values.low, high=values.high)
            )
        return message

    def _state(self, manifest: Manifest) -> tuple[VersionState.ValueType, str]:
        manager, version, digest = self.manager, manifest.version, manifest.own_digest
        current = manager.current
        if current is not None and current.manifest.own_digest == digest:
            return VersionState.STATE_ACTIVE, "answers calls that select nothing"
        if manifest.gate.verdict == "REJECTED":
            return VersionState.STATE_REJECTED, "; ".join(manifest.gate.reasons)
        if reason := manager.loader.failure(version, digest):
            return VersionState.STATE_FAILED, reason
        if manager.loader.loading == version:
            return VersionState.STATE_LOADING, "being read and verified"
        where = "in memory" if manager.in_memory(version) else "loaded when it is selected"
        return VersionState.STATE_STANDBY, where


def _page_size(asked: int) -> int:
    """Return the number of versions in a page; raises InvalidInput."""
    if asked < 0:
        raise InvalidInput("page_size", f"page_size {asked}, expected 0 or more")
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def _below(token: str) -> float:
    """Return the number that a page token means: the page begins below; raises InvalidInput."""
    if token and not (token.isascii() and token.isdecimal() and len(token) < 20):
        raise InvalidInput(
            "page_token", "not a page token of this server: expected next_page_token of an answer"
        )
    return int(token) if token else float("inf")
