"""`mlpserve-trainer judge`: decide on evidence, once or repeatedly, or replay a decision."""

import argparse
import json
import logging
import threading
from collections.abc import Sequence

from mlpserve_model import Store
from mlpserve_model.process.arguments import SettingsParser, duration
from mlpserve_model.process.follower import Guard
from mlpserve_model.process.log import set_up
from mlpserve_model.process.tables import table
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.location import no_folder
from mlpserve_trainer.commands.feedback_flags import (
    add_feedback,
    add_judge_flags,
    add_receipt_keys,
    receipt_keys,
)
from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.judge.decision import Decision
from mlpserve_trainer.judge.judge import Judge, JudgeSettings
from mlpserve_trainer.judge.replay import replay

__all__ = ["add_flags", "judge_of", "run"]

HEADER = ("PAIR", "LABELS", "WON", "LOST", "E BETTER", "E WORSE", "DECISION")
DONE, DIFFERENT = 0, 1

logger = logging.getLogger(__name__)


def add_flags(parser: SettingsParser) -> None:
    """Add the flags of the command."""
    parser.add_store()
    parser.add_logging()
    add_feedback(parser, "the reports: the place that the servers have as --feedback")
    add_judge_flags(parser)
    add_receipt_keys(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the table, and do nothing")
    parser.add_argument(
        "--every", type=duration(1, 86400), help="judge repeatedly, at this interval, such as 1m"
    )
    parser.add_argument(
        "--replay",
        metavar="DIGEST",
        help="compute the decision again whose evidence has a digest that begins so",
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    set_up(options.log_format, options.log_level)
    if options.feedback is None:
        raise UsageError("--feedback is required: the place where the servers put reports")
    if options.replay is not None:
        return _replay(options)
    judge = judge_of(options)
    if options.every:
        return _repeat(judge, options)
    decisions = judge.evaluate() if options.dry_run else judge.act()
    if options.json:
        print(json.dumps([_document(decision) for decision in decisions]))
    else:
        print(_table(decisions) if decisions else "nothing to judge: there is no challenger")
        if missing := no_folder(options.feedback):
            print(f"no reports in {options.feedback}{missing}")
    return DONE


def judge_of(options: argparse.Namespace) -> Judge:
    """Return the judge that the flags describe; raises UsageError for unusable keys."""
    return Judge(
        Store(options.store, options.model), FeedbackPlace(options.feedback), _settings(options)
    )


def _settings(options: argparse.Namespace) -> JudgeSettings:
    return JudgeSettings(
        alpha=options.alpha, probation=options.probation, keys=receipt_keys(options)
    )


def _repeat(judge: Judge, options: argparse.Namespace) -> int:
    """Judge until SIGTERM or Ctrl-C; a failure is logged, and the next evaluation follows."""
    if options.dry_run or options.json:
        raise UsageError("--every logs each decision: leave out --dry-run and --json")
    guard = Guard("judge")
    try:
        while True:
            guard.run(judge.act)
            threading.Event().wait(options.every)
    except KeyboardInterrupt:
        return DONE


def _replay(options: argparse.Namespace) -> int:
    store, place = Store(options.store, options.model), FeedbackPlace(options.feedback)
    found = replay(store, place, options.replay, _settings(options))
    if options.json:
        document = _document(found.again) | {"differences": found.differences}
        print(json.dumps(document))
    else:
        print(f"{found.event['event']} at {found.event.get('time')}: {found.again.reason}")
        print("\n".join(found.differences) or "computed again: identical")
    return DIFFERENT if found.differences else DONE


def _document(decision: Decision) -> dict[str, object]:
    return {
        **decision.facts(),
        "action": decision.action,
        "more_labels": decision.more_labels,
        "left_out": decision.evidence.left_out,
        "reason": decision.reason,
    }


def _table(decisions: Sequence[Decision]) -> str:
    return table(HEADER, [_row(decision) for decision in decisions])


def _row(decision: Decision) -> tuple[str, ...]:
    pair, found = decision.pair, decision.evidence
    what = "previous" if pair.is_probation else "challenger"
    facts = decision.facts()
    return (
        f"{what} {pair.rival}, champion {pair.champion}",
        str(found.labels),
        str(found.wins),
        str(found.losses),
        f"{facts['e_value_better']:.3g}",
        f"{facts['e_value_worse']:.3g}",
        decision.in_words,
    )
