"""The data plane: bytes in, bytes out or an error. It knows no transport.

A request is decoded into a query, joined with others for one matrix product, and encoded again.
Single calls come as many at once as are waiting; a batch is answered in steps, so that its
runner can stop, or turn to something else, in between.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TypeAlias

from mlpserve_model import Manifest, StoredModel
from mlpserve_server.dataplane import explanations, tensors
from mlpserve_server.dataplane.codec import BatchCodec, SingleCodec
from mlpserve_server.dataplane.explanations import ExplainCodec
from mlpserve_server.dataplane.inference import CHUNK_ROWS, Inference, joined
from mlpserve_server.dataplane.oip_codec import FewRowsCodec, InferCodec
from mlpserve_server.dataplane.query import Codec, Decoder, Float32, Q, Query, Result, Selection
from mlpserve_server.errors import Abandoned, NoReceipts, NotFinite, as_value
from mlpserve_server.evidence.receipts import ReceiptIssuer
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.security.scope import ALL, Scope

__all__ = ["DataPlane", "Outcome", "Scopes", "Steps", "complete"]

# What comes of a request: a result, or the reason why there is none.
Outcome: TypeAlias = Result | Exception
# Work in steps of about a millisecond, each of which yields the name of the model that it is for;
# its value is the result.
Steps: TypeAlias = Generator[str, None, Result]
# What the callers of some requests may use, in order; None where all may use every model.
Scopes: TypeAlias = Sequence[Scope] | None
# Finds the model that a request selects, in the scope of its caller; raises ServingError.
_Find: TypeAlias = Callable[[Selection, Scope], StoredModel]
# A checked query, and the model that answers it.
_Job: TypeAlias = tuple[Q, StoredModel]

_SINGLE, _BATCH, _EXPLAIN = SingleCodec(), BatchCodec(), ExplainCodec()
_INFER, _FEW = InferCodec(), FewRowsCodec()


def complete(steps: Generator[object, None, Result], active: Callable[[], bool]) -> Result:
    """Take all steps and return the result; raise Abandoned once `active` returns False."""
    while active():
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
    raise Abandoned("the caller no longer waits")


class DataPlane:
    """Answers prediction requests with the models that are served.

    `may_load` says whether a selected version may be read from the store on the way; where it
    may not, such a call is answered with NotInMemory and must be repeated on a thread that may
    block. The scope of a caller bounds the models that it may use.

    Args:
        models: what answers.
        max_batch: instances in one request.
        inference: what runs rows through models.
        issuer: what signs receipts; None if answers have none.

    """

    def __init__(
        self,
        models: Models,
        max_batch: int,
        inference: Inference,
        issuer: ReceiptIssuer | None = None,
    ) -> None:
        self._models = models
        self.max_batch = max_batch
        self._inference = inference
        self._issuer = issuer

    def predict(
        self, requests: Sequence[bytes], may_load: bool = True, scopes: Scopes = None
    ) -> list[Outcome]:
        """Answer PredictRequests with PredictResponses or errors, in order; raise nothing.

        Large requests come alone, and are not parsed if they exceed what models in memory take.
        """
        size = len(requests[0]) if len(requests) == 1 else 0
        if size > tensors.ANY_INSTANCE_BYTES and (
            error := tensors.too_long(size, self._models.max_inputs, _SINGLE.field)
        ):
            return [error]
        return self._answer(_SINGLE, requests, may_load, scopes)

    def infer(
        self, requests: Sequence[bytes], may_load: bool = True, scopes: Scopes = None
    ) -> list[Outcome]:
        """Answer small ModelInferRequests as `predict` does its own; many rows with ManyRows."""
        return self._answer(_FEW, requests, may_load, scopes)

    def batch_predict(self, request: bytes, may_load: bool = True, scope: Scope = ALL) -> Steps:
        """Answer a BatchPredictRequest with a BatchPredictResponse; raise ServingError."""
        return self._in_steps(_BATCH, request, may_load, scope)

    def infer_in_steps(self, request: bytes, may_load: bool = True, scope: Scope = ALL) -> Steps:
        """Answer a ModelInferRequest with a ModelInferResponse; raise ServingError."""
        return self._in_steps(_INFER, request, may_load, scope)

    def explain(self, request: bytes, may_load: bool = True, scope: Scope = ALL) -> Steps:
        """Answer an ExplainRequest with an ExplainResponse; raise ServingError."""
        query, model = self._decode(_EXPLAIN, request, partial(self._find, may_load), scope)
        compute = partial(explanations.explain, model, query=query)
        parts = yield from self._inference.in_chunks(_EXPLAIN.field, query, model.manifest, compute)
        response = _EXPLAIN.encode(parts, model.manifest, query)
        rows = tensors.row_count(query, model.manifest)
        return Result(response, rows, model.manifest.version, model.manifest.model)

    def _answer(
        self, codec: Codec[Q], requests: Sequence[bytes], may_load: bool, scopes: Scopes
    ) -> list[Outcome]:
        """Answer requests with one matrix product for each model and dtype, and explained ones."""
        if len(requests) == 1:  # nothing to share, and the caller sees every microsecond
            return [self._answer_one(codec, requests[0], may_load, scopes[0] if scopes else ALL)]
        answers: dict[int, Outcome] = {}
        find = _remembering(partial(self._find, may_load))
        groups: defaultdict[tuple[int, int, bool], dict[int, _Job[Q]]] = defaultdict(dict)
        for place, request in enumerate(requests):
            try:
                scope = scopes[place] if scopes else ALL
                query, model = job = self._decode(codec, request, find, scope)
            except Exception as error:
                answers[place] = as_value(error)
            else:
                groups[id(model), query.dtype, query.explains][place] = job
        for group in groups.values():
            together = _answered([*group.values()], partial(self._answer_jobs, codec))
            answers |= zip(group, together, strict=True)
        return [answers[place] for place in range(len(requests))]

    def _answer_one(self, codec: Codec[Q], request: bytes, may_load: bool, scope: Scope) -> Outcome:
        try:
            find = partial(self._find, may_load)
            return self._answer_jobs(codec, [self._decode(codec, request, find, scope)])[0]
        except Exception as error:
            return as_value(error)

    def _in_steps(self, codec: Codec[Q], request: bytes, may_load: bool, scope: Scope) -> Steps:
        query, model = self._decode(codec, request, partial(self._find, may_load), scope)
        compute = partial(self._inference.compute, model, codec.field, query.explains)
        parts = yield from self._inference.in_chunks(codec.field, query, model.manifest, compute)
        computed = joined(parts)
        (response,) = codec.encode(computed, model.manifest, [query])
        rows = tensors.row_count(query, model.manifest)
        if query.receipts and self._issuer:
            response += yield from _receipts(
                self._issuer, query, model.manifest, computed.probabilities
            )
        return Result(response, rows, model.manifest.version, model.manifest.model)

    def _find(self, may_load: bool, selection: Selection, scope: Scope) -> StoredModel:
        version, alias, name = selection
        return self._models.get(name, scope=scope).get(version, alias, may_load=may_load)

    def _decode(self, codec: Decoder[Q], request: bytes, find: _Find, scope: Scope) -> _Job[Q]:
        """Decode and check a request; raise ServingError."""
        query = codec.decode(request)
        model = find(query.selection, scope)
        codec.check(query, model.manifest, self.max_batch)
        if query.receipts and self._issuer is None:
            raise NoReceipts()
        return query, model

    def _answer_jobs(self, codec: Codec[Q], jobs: Sequence[_Job[Q]]) -> list[Result]:
        """Answer jobs of one model and dtype; raise InvalidInput if a value is wrong."""
        queries = [query for query, _ in jobs]
        model = jobs[0][1]
        manifest = model.manifest
        data = queries[0].data if len(queries) == 1 else b"".join(q.data for q in queries)
        x = tensors.scaled(data, queries[0].dtype, manifest, codec.field)
        computed = self._inference.compute(model, codec.field, queries[0].explains, x)
        responses = codec.encode(computed, manifest, queries)
        if self._issuer and (asking := [n for n, query in enumerate(queries) if query.receipts]):
            rows = tensors.hashed_rows(data, queries[0].dtype, manifest, x)
            answered = (manifest, computed.probabilities, rows)
            responses = _with_receipts(self._issuer, asking, responses, *answered)
        row_bytes, version, name = len(data) // len(x), manifest.version, manifest.model
        return [
            Result(response, len(query.data) // row_bytes, version, name)
            for response, query in zip(responses, queries, strict=True)
        ]


def _answered(
    jobs: Sequence[_Job[Q]], answer: Callable[[Sequence[_Job[Q]]], Sequence[Outcome]]
) -> Sequence[Outcome]:
    """Answer jobs of one model and dtype together, and refuse those whose rows are wrong.

    They cost the others little more. Wrong values are found before the product, half and half;
    wrong answers in it, and the others are computed once again.
    """
    try:
        return answer(jobs)
    except NotFinite as error:
        owners = [
            place
            for place, (query, model) in enumerate(jobs)
            for _ in range(tensors.row_count(query, model.manifest))
        ]
        wrong = {owners[row] for row in error.rows}
        right = [job for place, job in enumerate(jobs) if place not in wrong]
        others = iter(_answered(right, answer) if right else ())
        return [as_value(error) if place in wrong else next(others) for place in range(len(jobs))]
    except Exception as error:
        if len(jobs) == 1:
            return [as_value(error)]
        middle = len(jobs) // 2
        return [*_answered(jobs[:middle], answer), *_answered(jobs[middle:], answer)]


def _remembering(find: _Find) -> _Find:
    """Return what finds models; of requests that select alike, one after another, once."""
    last: tuple[Selection, Scope] | None = None
    model: StoredModel

    def find_again(selection: Selection, scope: Scope) -> StoredModel:
        nonlocal last, model
        if last is None or selection != last[0] or scope is not last[1]:
            model = find(selection, scope)
            last = selection, scope
        return model

    return find_again


def _receipts(
    issuer: ReceiptIssuer, query: Query, manifest: Manifest, probabilities: Float32
) -> Generator[str, None, bytes]:
    """Return the receipts of a batch's rows, encoded, some signed in each step."""
    row_bytes, data = len(query.data) // len(probabilities), memoryview(query.data)
    fields: list[bytes] = []
    for first in range(0, len(probabilities), CHUNK_ROWS):
        yield manifest.model
        chunk = probabilities[first : first + CHUNK_ROWS]
        values = data[first * row_bytes : (first + len(chunk)) * row_bytes]
        x = tensors.scaled(values, query.dtype, manifest, _BATCH.field, first)
        rows = tensors.hashed_rows(values, query.dtype, manifest, x)
        fields += issuer.append([b""] * len(rows), manifest, chunk, rows)
    return b"".join(fields)


def _with_receipts(
    issuer: ReceiptIssuer,
    asking: Sequence[int],
    responses: list[bytes],
    manifest: Manifest,
    probabilities: Float32,
    rows: Sequence[bytes],
) -> list[bytes]:
    """Return the responses of single rows, with receipts behind those whose callers ask for one."""
    if len(asking) == len(responses):
        return issuer.append(responses, manifest, probabilities, rows)
    chosen, hashed = [responses[place] for place in asking], [rows[place] for place in asking]
    appended = issuer.append(chosen, manifest, probabilities[asking], hashed)
    for place, response in zip(asking, appended, strict=True):
        responses[place] = response
    return responses
