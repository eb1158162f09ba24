"""The flags of a training, and the settings that are made of them."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from mlpserve_model.process.arguments import SettingsParser, between
from mlpserve_trainer.datasets import parts_of
from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.recipe import load_recipe, recipe_keys
from mlpserve_trainer.release.gate import Rules
from mlpserve_trainer.training import TrainSettings, default_cache_dir

__all__ = ["add_places", "add_schedule_flags", "add_train_flags", "flag", "train_settings"]

DAY = 86400
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": DAY}

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def add_train_flags(parser: SettingsParser) -> None:
    """Add all that a training can be told."""
    parser.add_store()
    parser.add_logging()
    add_places(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--resume", action="store_true", help="go on where the same was stopped")
    parser.add_argument(
        "--checkpoint-dir",
        type=Path,
        help="where each epoch is kept until the training is over; else in the cache",
    )
    parser.add_argument("--recipe", default="quick", help="a name from `recipes`, or a .toml file")
    parser.add_argument(
        "--seed", type=between(0, 2**63 - 1, int), default=0, help="of all randomness"
    )
    for key in recipe_keys():
        choices = f", {' or '.join(key.choices)}" if key.choices else ""
        text = f"instead of the recipe's: {key.help}{choices}"
        parser.add_argument(flag(key.name), type=key.parse, help=text, dest=key.name)
    parser.add_argument(
        "--min-accuracy", type=between(0, 1), default=Rules.min_accuracy, help="the gate's floor"
    )
    parser.add_argument(
        "--margin",
        type=between(0, 1),
        default=Rules.margin,
        help="how much less accurate than the champion the gate lets pass",
    )
    parser.add_argument(
        "--allow-signature-change",
        action="store_true",
        help="let other inputs or classes than the champion's pass the gate",
    )
    parser.add_argument("--force", action="store_true", help="promote what fails the gate")
    parser.add_argument(
        "--unless-published",
        action="store_true",
        help="do nothing when there is a champion: for what starts again and again",
    )
    parser.add_argument(
        "--unless-unchanged",
        action="store_true",
        help="do nothing when the champion or the newest version has the same data and recipe",
    )
    parser.add_argument("--reason", help="why --force, for the manifest and the history")


def add_schedule_flags(parser: SettingsParser) -> None:
    """Add all that a training can be told, and when to run it."""
    add_train_flags(parser)
    parser.add_argument("--cron", help='when: "0 3 * * *", six fields with seconds first, @daily')
    parser.add_argument(
        "--every", type=_duration(1, 366 * DAY), help="or how often: 90s, 5m, 6h, 1d"
    )
    parser.add_argument("--time-zone", default="UTC", help="of --cron, as Europe/Berlin")
    parser.add_argument(
        "--jitter",
        type=_duration(0, 366 * DAY),
        default=0,
        help="each run starts up to so much later, at random",
    )
    parser.add_argument("--now", action="store_true", help="run once at the start as well")
    parser.add_argument(
        "--always", action="store_true", help="train when data and recipe are unchanged as well"
    )
    parser.add_argument(
        "--run-timeout",
        type=_duration(1, 20 * DAY),  # the system waits for no more than 24 days at a time
        default="24h",
        help="a run that takes longer has hung and is ended",
    )
    parser.add_argument(
        "--health-listen", help="HOST:PORT for GET /healthz and /metrics; else there are none"
    )


def _duration(low: float, high: float) -> Callable[[str], float]:
    def seconds(text: str) -> float:
        """Return the seconds of 90, 90s, 5m, 6h or 1d."""
        match = _DURATION.fullmatch(text)
        if not match:
            raise argparse.ArgumentTypeError(
                f"invalid duration {text!r}: expected 90s, 5m, 6h or 1d"
            )
        value = float(match[1]) * UNITS[match[2]]
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text} is not a duration from {low:g}s to {high / DAY:g}d"
            )
        return value

    return seconds


def add_places(parser: SettingsParser) -> None:
    """Add where data is looked for."""
    parser.add_argument("--data-dir", type=Path, help="a folder of IDX files, or an .npz file")
    parser.add_argument(
        "--cache-dir", type=Path, default=default_cache_dir(), help="where fetched data is kept"
    )


def train_settings(options: argparse.Namespace) -> TrainSettings:
    """Return the settings of a training; raises UsageError for what makes no sense."""
    if options.force != bool(options.reason):
        raise UsageError("--force and --reason go together: say why")
    given = {key.name: getattr(options, key.name) for key in recipe_keys()}
    changes = {name: value for name, value in given.items() if value is not None}
    recipe = load_recipe(options.recipe, **changes)
    parts_of(recipe.dataset)  # says now what is misspelt
    return TrainSettings(
        store=options.store,
        model=options.model,
        recipe=recipe,
        seed=options.seed,
        data_dir=options.data_dir,
        cache_dir=options.cache_dir,
        rules=Rules(
            min_accuracy=options.min_accuracy,
            margin=options.margin,
            allow_signature_change=options.allow_signature_change,
            force_reason=options.reason,
        ),
        checkpoint_dir=options.checkpoint_dir or options.cache_dir / "checkpoints",
        resume=options.resume,
        unless_unchanged=options.unless_unchanged,
    )


def flag(key: str) -> str:
    """Return the flag of a setting: --min-accuracy of min_accuracy."""
    return "--" + key.replace("_", "-")
