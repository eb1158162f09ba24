"""The flags of what callers report: where it is, and which of it is evidence or a correction."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mlpserve_model.process.arguments import SettingsParser, between, duration, location
from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_model.store.evidence.receipts import ReceiptKeys, read_keys
from mlpserve_model.store.location import Location
from mlpserve_trainer.corrections.collect import CorrectionSettings
from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.judge.judge import JudgeSettings

__all__ = [
    "add_correction_flags",
    "add_feedback",
    "add_judge_flags",
    "add_receipt_keys",
    "correction_settings",
    "receipt_keys",
]

DAY = 86400


def add_correction_flags(parser: SettingsParser) -> None:
    """Add the flags that say which reports are corrections."""
    parser.add_argument(
        "--auto-accept",
        type=between(2, 1000, int),
        help="accept corrections of a row without a review if so many sources agree on it of which "
        "reviews accepted more than they rejected",
    )
    parser.add_argument(
        "--quota",
        type=between(1, 10**6, int),
        default=CorrectionSettings.quota,
        help="reports of one source and day that wait for a review; further ones do not",
    )


def correction_settings(options: argparse.Namespace, place: Location) -> CorrectionSettings:
    """Return which corrections are used; raises UsageError for unusable keys."""
    return CorrectionSettings(
        place=place,
        auto_accept=options.auto_accept,
        quota=options.quota,
        share=getattr(options, "max_corrections", CorrectionSettings.share),
        source_share=getattr(options, "max_per_source", CorrectionSettings.source_share),
        keys=receipt_keys(options),
    )


def add_feedback(parser: SettingsParser, text: str) -> None:
    """Add the flag for the place of reports."""
    parser.add_argument("--feedback", type=location, help=text)


def add_judge_flags(parser: SettingsParser) -> None:
    """Add the flags that say how the judge decides."""
    parser.add_argument(
        "--alpha",
        type=between(1e-9, 0.5),
        default=JudgeSettings.alpha,
        help="probability of acting on a challenger or a new champion for no reason",
    )
    parser.add_argument(
        "--probation",
        type=duration(0, 366 * DAY),
        default="7d",
        help="time for which a new champion is compared with the one before it; 0s for none",
    )


def add_receipt_keys(parser: SettingsParser) -> None:
    """Add the flag for the keys of receipts."""
    parser.add_argument(
        "--receipt-keys",
        type=Path,
        help="file of the servers' receipt keys, to verify the receipt of every report again",
    )


def receipt_keys(options: argparse.Namespace) -> Callable[[], ReceiptKeys] | None:
    """Return what reads the keys of receipts, if they are given; raises UsageError as it does.

    They are read when they are used: servers follow the file, and so must a schedule that runs for
    weeks. It goes to processes of trainings, as keys that have begun to hash could not.
    """
    if options.receipt_keys is None:
        return None
    read = partial(_read, options.receipt_keys)
    read()
    return read


def _read(path: Path) -> ReceiptKeys:
    """Return the keys in a file; raises UsageError for one that cannot be used."""
    try:
        return read_keys(path)
    except UnusableFile as error:
        raise UsageError(f"--receipt-keys: {error}") from error
