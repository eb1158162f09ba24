"""Reviews on the page: reviewers see what callers corrected, and accept or reject it.

Who reviews decides what is learnt, so reviewers have tokens of their own: a caller's would let a
liar accept its own reports. A token comes in a header, which no page of another site can send.
"""

import asyncio
import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hmac import compare_digest
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mlpserve_model import Store, StoreError
from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_model.store.evidence.corrections import PENDING, SUSPECT, Correction
from mlpserve_model.store.evidence.inbox import Inbox, Reviewing, with_instances
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.evidence.reviews import ACCEPTED, REJECTED, Reviews
from mlpserve_model.store.secret_files import read_secrets
from mlpserve_web.errors import HttpError
from mlpserve_web.requests import Body, bearer_token

__all__ = ["Desk", "read_reviewers", "review_routes"]

log = logging.getLogger(__name__)

_PAGE = str(files("mlpserve_web") / "static" / "review.html")
_SHOWN = 24  # corrections of one answer
_DIGITS = 12  # of a source's fingerprint
_CLAIMS = 8  # classes that sources name for one row
_VALUES = 2**14  # of one instance: a picture of 128 by 128
_MIN_TOKEN, _MAX_TOKENS = 16, 64
_MAX_REASON = 1000


def read_reviewers(path: Path) -> list[str]:
    """Return the reviewers' tokens; raises UnusableFile."""
    return read_secrets(path, "token", _MIN_TOKEN, _MAX_TOKENS)


class Desk:
    """The corrections of a model that wait for a review, and the reviewers.

    Args:
        place: The reports: what the model servers have as --feedback.
        model: Name of the model.
        tokens: File of the reviewers' tokens; it is read at each request, and so followed.
        store: Where the versions' class names are; None shows numbers instead.
    """

    def __init__(self, place: FeedbackPlace, model: str, tokens: Path, store: Store | None) -> None:
        self._place, self._model, self._tokens, self._store = place, model, tokens, store
        self._inbox = Inbox(place, model, Reviewing())
        self._names: dict[int, tuple[str, ...]] = {}

    def reviewer(self, token: str | None) -> str:
        """Return how reviews name who has this token; raises HttpError for anybody else."""
        given = (token or "").encode()
        # All are compared, so that the time of a refusal tells nothing of a token.
        found = [compare_digest(given, known.encode()) for known in read_reviewers(self._tokens)]
        if token is None or not any(found):
            raise HttpError(401, "expected the token of a reviewer: see --review-tokens")
        return f"token {hashlib.sha256(given).hexdigest()[:16]}"

    def waiting(self) -> dict[str, Any]:
        """Return the corrections that wait longest, suspect ones last, and how many there are."""
        found, suspects = self._inbox.evaluate()
        waiting = [c for state in (PENDING, SUSPECT) for c in found if c.state == state]
        shown = with_instances(self._place, self._model, waiting[:_SHOWN])
        claims = _claims(found)
        return {
            "model": self._model,
            "waiting": len(waiting),
            "corrections": [
                self._document(c, claims[c.row], suspects.get(c.report.source)) for c in shown
            ],
        }

    def review(self, tag: str, verdict: str, reason: str, reviewer: str) -> None:
        """Keep a verdict.

        Raises:
            HttpError: No correction has this tag, or it was reviewed meanwhile.

        """
        found, _ = self._inbox.evaluate()
        correction = next((c for c in found if c.report.tag == tag), None)
        if correction is None:
            raise HttpError(404, "there is no such correction")
        if correction.state not in (PENDING, SUSPECT):
            raise HttpError(409, f"this correction does not wait any more: {correction.state}")
        Reviews(self._place, self._model).add(tag, verdict, reason, reviewer)

    def _document(
        self, correction: Correction, claims: Counter[str], suspicion: str | None
    ) -> dict[str, Any]:
        report = correction.report
        return {
            "tag": report.tag,
            "state": correction.state,
            "suspicion": suspicion,
            "reported": datetime.fromtimestamp(report.reported_at, UTC).isoformat(),
            "version": report.version,
            "answer": self._class_name(report.version, report.label),
            "confidence": report.confidence,
            "truth": correction.truth,
            "source": report.source[:_DIGITS],
            "claims": dict(claims.most_common(_CLAIMS)),
            "note": report.note,
            "instance": {
                "shape": correction.instance.shape,
                "values": correction.instance.ravel()[:_VALUES].tolist(),
            },
        }

    def _class_name(self, version: int, label: int) -> str:
        if version not in self._names:
            self._names[version] = self._class_names(version)
        names = self._names[version]
        return names[label] if label < len(names) else f"class number {label}"

    def _class_names(self, version: int) -> tuple[str, ...]:
        try:
            manifest = self._store.manifest(version) if self._store else None
        except StoreError:  # it was removed since
            manifest = None
        return manifest.signature.class_names if manifest else ()


def review_routes(body: Body, desk: Desk | None) -> list[BaseRoute]:
    """Return the routes of the reviews; without a desk they say how there is one."""
    one_at_a_time = asyncio.Lock()

    async def at_desk(request: Request) -> tuple[Desk, str]:
        if desk is None:
            raise HttpError(404, "no --review was given: there is nothing to review here")
        with _translated():
            return desk, await asyncio.to_thread(desk.reviewer, bearer_token(request))

    async def listed(request: Request) -> Response:
        at, _ = await at_desk(request)
        async with one_at_a_time:
            with _translated():
                content = orjson.dumps(await asyncio.to_thread(at.waiting))
        request.state.take(len(content))
        headers = {"Cache-Control": "no-store"}
        return Response(content, media_type="application/json", headers=headers)

    async def review(request: Request) -> Response:
        at, reviewer = await at_desk(request)
        verdict, reason = _verdict(await body(request))
        async with one_at_a_time:
            with _translated():
                tag = request.path_params["tag"]
                await asyncio.to_thread(at.review, tag, verdict, reason, reviewer)
        return JSONResponse({"verdict": verdict})

    async def page(_: Request) -> Response:
        return FileResponse(_PAGE)

    return [
        Route("/review", page),
        Route("/api/corrections", listed),
        Route("/api/corrections/{tag}", review, methods=["POST"]),
    ]


def _claims(found: Sequence[Correction]) -> dict[str, Counter[str]]:
    """Return how many sources say what of each row."""
    sources = {(c.row, c.truth, c.report.source) for c in found}
    claims: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row, truth, _ in sources:
        claims[row][truth] += 1
    return claims


def _verdict(data: bytes) -> tuple[str, str]:
    """Return the verdict and the reason in a body; raises HttpError."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = None
    verdict, reason = None, ""
    if isinstance(document, dict):
        verdict, reason = document.get("verdict"), document.get("reason", "")
    if verdict not in (ACCEPTED, REJECTED) or not isinstance(reason, str):
        raise HttpError(400, 'expected {"verdict": "accepted" or "rejected", "reason": "..."}')
    if len(reason) > _MAX_REASON:
        raise HttpError(400, f"{len(reason)} characters of reason, expected at most {_MAX_REASON}")
    return verdict, reason


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what is wrong with the place or the tokens into an answer that names neither."""
    try:
        yield
    except (StoreError, UnusableFile) as error:
        log.warning("cannot review", extra={"reason": str(error)})
        raise HttpError(503, "reports or reviews cannot be used now: see the log") from error
