"""The flags of a training, and the settings that they give."""

import argparse
from dataclasses import replace
from pathlib import Path

from mlpserve_model import CHALLENGER, CHAMPION
from mlpserve_model.process.arguments import SettingsParser, between, duration, location
from mlpserve_model.process.folders import cache_folder
from mlpserve_trainer.commands.feedback_flags import (
    add_correction_flags,
    add_feedback,
    add_judge_flags,
    add_receipt_keys,
    correction_settings,
)
from mlpserve_trainer.corrections.collect import CorrectionSettings
from mlpserve_trainer.datasets import DataLocations
from mlpserve_trainer.datasets.sources import check_used
from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.recipes.loading import load_recipe
from mlpserve_trainer.recipes.recipe import recipe_keys
from mlpserve_trainer.release.gate import Rules
from mlpserve_trainer.training.pipeline import TrainSettings

__all__ = [
    "add_cache",
    "add_gate_flags",
    "add_places",
    "add_schedule_flags",
    "add_train_flags",
    "flag",
    "gate_rules",
    "schedule_settings",
    "train_settings",
]

DAY = 86400
WITH_MOMENTUM = ("sgd", "nesterov")


def add_train_flags(parser: SettingsParser) -> None:
    """Add the flags of a training."""
    parser.add_store()
    parser.add_logging()
    add_places(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument(
        "--resume", action="store_true", help="resume this training from its last checkpoint"
    )
    parser.add_argument(
        "--checkpoint-dir",
        type=Path,
        shown="checkpoints in --cache-dir",
        help="folder of the checkpoints, which are kept until the training has ended",
    )
    parser.add_argument(
        "--recipe", default="quick", help="name of a recipe, or a .toml file; `recipes` lists them"
    )
    parser.add_argument(
        "--seed", type=between(0, 2**63 - 1, int), default=0, help="seed of all randomness"
    )
    for key in recipe_keys():
        choices = f", {' or '.join(key.choices)}" if key.choices else ""
        text = f"override the recipe: {key.help}{choices}"
        parser.add_argument(flag(key.name), type=key.parse, help=text, dest=key.name)
    parser.add_argument(
        "--corrections",
        type=location,
        help="also train on accepted corrections: the place that the servers have as --feedback",
    )
    add_correction_flags(parser)
    add_receipt_keys(parser)
    parser.add_argument(
        "--max-corrections",
        type=between(0, 1),
        default=CorrectionSettings.share,
        help="largest share of the rows, and of those of each class, that corrections add",
    )
    parser.add_argument(
        "--max-per-source",
        type=between(0, 1),
        default=CorrectionSettings.source_share,
        help="largest share of --max-corrections, in all and of each class, from one source; 1 if "
        "there is one source alone",
    )
    add_gate_flags(parser)
    parser.add_argument(
        "--unless-published",
        action="store_true",
        help="do nothing if there is a champion",
    )
    parser.add_argument(
        "--unless-unchanged",
        action="store_true",
        help="do nothing if the champion or the newest version has the same data and recipe",
    )


def add_gate_flags(parser: SettingsParser) -> None:
    """Add the flags that say how strict the gate is, and what happens to a version that passes."""
    parser.add_argument(
        "--min-accuracy",
        type=between(0, 1),
        default=Rules.min_accuracy,
        help="minimum accuracy of a version that passes the gate",
    )
    parser.add_argument(
        "--margin",
        type=between(0, 1),
        default=Rules.margin,
        help="accuracy that a version which passes the gate may lose against the champion",
    )
    parser.add_argument(
        "--allow-signature-change",
        action="store_true",
        help="let a version pass the gate whose inputs or classes differ from the champion's",
    )
    parser.add_argument(
        "--as",
        dest="alias",
        choices=(CHAMPION, CHALLENGER),
        default=CHAMPION,
        help="alias of a version that passes the gate; `judge` decides about a challenger",
    )
    parser.add_argument(
        "--force", action="store_true", help="promote the version although it fails the gate"
    )
    parser.add_argument("--reason", help="reason for --force, for the manifest and the history")


def add_schedule_flags(parser: SettingsParser) -> None:
    """Add the flags of a training and of its timetable."""
    add_train_flags(parser)
    parser.add_argument(
        "--cron",
        help='cron expression such as "0 3 * * *", six fields with seconds first, or @daily',
    )
    parser.add_argument(
        "--every",
        type=duration(1, 366 * DAY),
        help="interval instead of a cron expression, such as 90s, 5m, 6h, 1d",
    )
    parser.add_argument(
        "--time-zone", shown="UTC", help="time zone of --cron, such as Europe/Berlin"
    )
    parser.add_argument(
        "--jitter",
        type=duration(0, 366 * DAY),
        default=0,
        help="maximum random delay of each run",
    )
    parser.add_argument("--now", action="store_true", help="also run once at the start")
    parser.add_argument(
        "--always", action="store_true", help="also train when data and recipe are unchanged"
    )
    parser.add_argument(
        "--run-timeout",
        type=duration(1, 20 * DAY),  # the system waits for no more than 24 days at a time
        default="24h",
        help="end a run that takes longer",
    )
    parser.add_argument(
        "--judge",
        type=duration(1, DAY),
        help="also judge at this interval, such as 1m; needs --feedback",
    )
    add_feedback(parser, "the reports that --judge reads")
    add_judge_flags(parser)
    parser.add_argument(
        "--health-listen", help="HOST:PORT that answers GET /healthz and GET /metrics"
    )


def add_places(parser: SettingsParser) -> None:
    """Add the flags for the places of data."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="the data: a .npz or .csv file, a folder of IDX files or images",
    )
    add_cache(parser)


def add_cache(parser: SettingsParser) -> None:
    """Add the flag for the folder of fetched data."""
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=cache_folder(),
        help="folder where fetched data is kept",
        shown="~/.cache/mlpserve",
    )


def gate_rules(options: argparse.Namespace) -> Rules:
    """Return how strict the gate is; raises UsageError for contradictory values."""
    if options.force != bool(options.reason):
        raise UsageError("--force and --reason go together: give both or neither")
    return Rules(
        min_accuracy=options.min_accuracy,
        margin=options.margin,
        allow_signature_change=options.allow_signature_change,
        force_reason=options.reason,
    )


def train_settings(options: argparse.Namespace) -> TrainSettings:
    """Return the settings of a training; raises UsageError for contradictory or unknown values."""
    rules = gate_rules(options)
    given = {key.name: getattr(options, key.name) for key in recipe_keys()}
    changes = {name: value for name, value in given.items() if value is not None}
    both = [name for name in ("hidden_activation", "output_activation") if name in changes]
    if "activations" in changes and both:
        raise UsageError(f"give one of --activations and {flag(both[0])}: it has all layers")
    recipe = load_recipe(options.recipe, **changes)
    if options.momentum is not None and recipe.optimizer not in WITH_MOMENTUM:
        raise UsageError(
            f"--momentum has no effect on the optimizer {recipe.optimizer}: leave it out, or set "
            f"--optimizer {' or '.join(WITH_MOMENTUM)}"
        )
    check_used(recipe.dataset, DataLocations(options.data_dir, options.cache_dir))
    return TrainSettings(
        store=options.store,
        model=options.model,
        recipe=recipe,
        seed=options.seed,
        data_dir=options.data_dir,
        cache_dir=options.cache_dir,
        rules=rules,
        checkpoint_dir=options.checkpoint_dir or options.cache_dir / "checkpoints",
        resume=options.resume,
        unless_unchanged=options.unless_unchanged,
        alias=options.alias,
        corrections=_corrections(options),
    )


def _corrections(options: argparse.Namespace) -> CorrectionSettings | None:
    if options.corrections is not None:
        return correction_settings(options, options.corrections)
    if options.auto_accept is not None:
        raise UsageError("--auto-accept needs --corrections: the place of the reports")
    return None


def schedule_settings(options: argparse.Namespace) -> TrainSettings:
    """Return the settings of each run of a schedule; raises UsageError as `train_settings`."""
    if options.unless_published:
        raise UsageError("--unless-published is for `train`: a schedule trains beside a champion")
    if options.always and options.unless_unchanged:
        raise UsageError("give one of --always and --unless-unchanged: they contradict each other")
    if bool(options.judge) != bool(options.feedback):
        raise UsageError("--judge and --feedback go together: give both or neither")
    return replace(train_settings(options), unless_unchanged=not options.always)


def flag(key: str) -> str:
    """Return the flag of a setting: --min-accuracy of min_accuracy."""
    return "--" + key.replace("_", "-")
