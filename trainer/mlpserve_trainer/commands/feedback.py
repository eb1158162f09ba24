"""`mlpserve-trainer feedback`: review the corrections that callers reported."""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from mlpserve_model import Store, StoreError
from mlpserve_model.process.arguments import SettingsParser
from mlpserve_model.process.log import set_up
from mlpserve_model.process.tables import plain, table
from mlpserve_model.store.evidence.corrections import (
    OVER_QUOTA,
    PENDING,
    REVOKED,
    SUSPECT,
    Correction,
)
from mlpserve_model.store.evidence.inbox import Inbox, with_instances
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.evidence.reviews import ACCEPTED, AGREED, NO_SOURCE, REJECTED, Reviews
from mlpserve_model.store.location import no_folder
from mlpserve_trainer.commands.feedback_flags import (
    add_correction_flags,
    add_feedback,
    add_receipt_keys,
    correction_settings,
)
from mlpserve_trainer.commands.flags import add_places
from mlpserve_trainer.corrections.nearest import Neighbour, nearest
from mlpserve_trainer.corrections.picture import drawing
from mlpserve_trainer.datasets import DataLocations
from mlpserve_trainer.errors import TrainerError, UsageError
from mlpserve_trainer.training.reproduction import training_data

__all__ = ["add_commands"]

STATES = (PENDING, SUSPECT, ACCEPTED, AGREED, REJECTED, REVOKED, OVER_QUOTA)
HEADER = ("TAG", "REPORTED", "VERSION", "TRUTH", "ANSWER", "CONFIDENCE", "SOURCE", "STATE")
SHOWN = 12  # digits of a tag or a source
NEAREST = 5  # training rows that are shown beside a correction
DONE = 0

Command = Callable[[argparse.Namespace], int]


def add_commands(parser: SettingsParser) -> None:
    """Add the commands below `feedback`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Command, text: str) -> SettingsParser:
        sub: SettingsParser = commands.add_parser(name, help=text, description=text)
        sub.add_store()
        sub.add_logging()
        add_feedback(sub, "the reports: the place that the servers have as --feedback")
        add_correction_flags(sub)
        add_receipt_keys(sub)
        sub.add_argument("--json", action="store_true", help="print JSON on stdout")
        sub.set_defaults(run=lambda options: _ready(options, run))
        return sub

    listing = command("list", _list, "list corrections, by default those that wait for a review")
    listing.add_argument(
        "--state", choices=(*STATES, "all"), default=PENDING, help="state of those listed"
    )
    show = command("show", _show, "show everything about one correction")
    show.add_argument("tag", help="its tag, or how it begins")
    add_places(show)
    for name, text in (
        ("accept", "accept corrections: trainings take them"),
        ("reject", "reject corrections: no training takes them"),
    ):
        review = command(name, _review, text)
        review.set_defaults(verdict=ACCEPTED if name == "accept" else REJECTED)
        review.add_argument("tags", nargs="*", metavar="tag", help="their tags, or how they begin")
        review.add_argument("--source", help="instead of tags: all that wait, of this source")
        review.add_argument("--reason", default="", help="reason, which is kept")
    revoke = command("revoke", _revoke, "take out all that a source reported, from now on")
    revoke.add_argument(
        "source", help=f"its fingerprint, or how it begins; {NO_SOURCE} for callers without a token"
    )
    revoke.add_argument("--reason", required=True, help="reason, which is kept")
    command("auto", _auto, "accept what --auto-accept proven sources agree on")


def _ready(options: argparse.Namespace, run: Command) -> int:
    set_up(options.log_format, options.log_level)
    if options.feedback is None:
        raise UsageError("--feedback is required: the place where the servers put reports")
    return run(options)


def _list(options: argparse.Namespace) -> int:
    found, suspects = _evaluate(options)
    chosen = [c for c in found if options.state in (c.state, "all")]
    if options.json:
        print(json.dumps([_document(correction) for correction in chosen]))
        return DONE
    if chosen:
        print(table(HEADER, map(_row, chosen)))
    counts = Counter(correction.state for correction in found)
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    nothing = f"no corrections in {options.feedback}{no_folder(options.feedback)}"
    print(f"{len(found)} corrections: {states}" if found else nothing)
    for source, reason in suspects.items():
        print(f"suspect: {source[:SHOWN] or NO_SOURCE}, {reason}")
    return DONE


def _show(options: argparse.Namespace) -> int:
    found, suspects = _evaluate(options)
    place = FeedbackPlace(options.feedback)
    whole = with_instances(place, options.model, [_one(found, options.tag)])
    if not whole:
        raise UsageError(f"the report {options.tag} is no longer there")
    (correction,) = whole
    document = _document(correction)
    neighbours, unknown = _neighbours(options, correction)
    if options.json:
        nearest_rows = [asdict(row) for row in neighbours]
        print(json.dumps(document | {"nearest": nearest_rows, "nearest_unknown": unknown}))
        return DONE
    review = Reviews(place, options.model).all().get(correction.report.tag)
    if review is not None:
        document["review"] = f"{review.verdict} by {review.by} at {review.at} {review.reason}"
    if suspicion := suspects.get(correction.report.source):
        document["suspect"] = suspicion
    width = max(map(len, document))
    for name, value in document.items():
        print(f"{name:{width}}  {plain(str(value))}".rstrip())
    if picture := drawing(correction.instance):
        print(f"\n{picture}")
    version = correction.report.version
    print(f"\ntraining rows of version {version} that are nearest, by Euclidean distance:")
    if unknown:
        print(f"unknown: {plain(unknown)}")
    else:
        rows = [(f"{one.distance:.3f}", one.label, str(one.row)) for one in neighbours]
        print(table(("DISTANCE", "LABEL", "ROW"), rows))
    return DONE


def _neighbours(options: argparse.Namespace, correction: Correction) -> tuple[list[Neighbour], str]:
    """Return the training rows of the version that answered, or why they are not known."""
    store, version = Store(options.store, options.model), correction.report.version
    try:
        manifest = store.manifest(version)
        places = DataLocations(options.data_dir, options.cache_dir)
        data, parts = training_data(store, manifest, places, options.feedback)
    except (StoreError, TrainerError) as error:
        return [], str(error)
    if correction.instance.shape != data.input_shape:
        return [], f"they have the shape {data.input_shape}"
    return nearest(correction.instance, parts.training, data.class_names, NEAREST), ""


def _review(options: argparse.Namespace) -> int:
    if bool(options.tags) == (options.source is not None):
        raise UsageError("give tags, or --source: one of the two")
    found, suspects = _evaluate(options)
    if options.source is None:
        chosen = [_one(found, tag) for tag in options.tags]
    else:
        source = _source((c.report.source for c in found), options.source)
        if source in suspects and options.verdict == ACCEPTED:
            raise UsageError(
                f"{source or NO_SOURCE} is suspect, {suspects[source]}: give the tags of those "
                "that you have looked at"
            )
        waiting = (PENDING, SUSPECT)
        chosen = [c for c in found if c.state in waiting and c.report.source == source]
    _judge(options, chosen, options.verdict, options.reason)
    return DONE


def _auto(options: argparse.Namespace) -> int:
    if options.auto_accept is None:
        raise UsageError("--auto-accept is required: how many sources have to agree")
    chosen = [c for c in _evaluate(options)[0] if c.state == AGREED]
    reason = f"{options.auto_accept} or more proven sources agree"
    _judge(options, chosen, AGREED, reason, options.auto_accept)
    return DONE


def _judge(
    options: argparse.Namespace,
    chosen: Sequence[Correction],
    verdict: str,
    reason: str,
    sources: int = 0,
) -> None:
    reviews = Reviews(FeedbackPlace(options.feedback), options.model)
    for correction in chosen:
        reviews.add(correction.report.tag, verdict, reason, sources=sources)
    if options.json:
        print(json.dumps({verdict: [c.report.tag for c in chosen]}))
    else:
        print(f"{verdict}: {len(chosen)}")


def _revoke(options: argparse.Namespace) -> int:
    reports = list(FeedbackPlace(options.feedback).reports(options.model))
    source = _source((report.source for report in reports), options.source)
    Reviews(FeedbackPlace(options.feedback), options.model).revoke(source, options.reason)
    taken = sum(report.source == source for report in reports)
    if options.json:
        print(json.dumps({"revoked": source, "reports": taken}))
    else:
        print(f"revoked: {source or NO_SOURCE}, {taken} reports; the next training is without")
    return DONE


def _evaluate(options: argparse.Namespace) -> tuple[list[Correction], dict[str, str]]:
    settings = correction_settings(options, options.feedback)
    return Inbox(FeedbackPlace(options.feedback), options.model, settings).evaluate()


def _one(found: Sequence[Correction], tag: str) -> Correction:
    matches = [c for c in found if c.report.tag.startswith(tag.lower())]
    if len(matches) != 1:
        some = f"{len(matches)} corrections have tags that begin"
        what = some if matches else "no correction has a tag that begins"
        raise UsageError(f"{what} with {tag[:63]!r}: `feedback list --state all` lists them")
    return matches[0]


def _source(sources: Iterable[str], text: str) -> str:
    """Return the fingerprint that this text begins."""
    if text == NO_SOURCE:
        return ""
    matches = {source for source in sources if source.startswith(text.lower())}
    if text and len(matches) == 1:
        return matches.pop()
    what = "several sources have" if matches else "no source has"
    raise UsageError(f"{what} a fingerprint that begins with {text[:63]!r}")


def _row(correction: Correction) -> tuple[str, ...]:
    report = correction.report
    return (
        report.tag[:SHOWN],
        _time(report.reported_at)[:16],
        str(report.version),
        correction.truth,
        str(report.label),
        f"{report.confidence:.4f}",
        report.source[:SHOWN] or NO_SOURCE,
        correction.state,
    )


def _document(correction: Correction) -> dict[str, Any]:
    report = correction.report
    return {
        "tag": report.tag,
        "state": correction.state,
        "reported": _time(report.reported_at),
        "version": report.version,
        "answer": report.label,
        "confidence": round(report.confidence, 4),
        "truth": correction.truth,
        "source": report.source or NO_SOURCE,
        "note": report.note,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
