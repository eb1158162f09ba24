"""The command mlpserve-trainer: train, schedule, judge, feedback, reproduce, sweep, and lists."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from mlpserve_model import Store, StoreError
from mlpserve_model.process.arguments import MAX_VERSION, SettingsParser, between
from mlpserve_model.process.interrupts import sigterm_as_sigint, uninterrupted
from mlpserve_model.process.log import set_up
from mlpserve_model.process.streams import printing
from mlpserve_trainer.commands import feedback, import_file, judge
from mlpserve_trainer.commands.feedback_flags import add_feedback
from mlpserve_trainer.commands.flags import (
    add_cache,
    add_places,
    add_schedule_flags,
    add_train_flags,
    schedule_settings,
    train_settings,
)
from mlpserve_trainer.datasets import DATASETS, DataLocations
from mlpserve_trainer.datasets.idx import has_images
from mlpserve_trainer.errors import TrainerError, UsageError
from mlpserve_trainer.fitting.progress import Watch, log_epochs, show_bar
from mlpserve_trainer.recipes.loading import load_recipe, recipe_names
from mlpserve_trainer.release.summary import summary
from mlpserve_trainer.training.pipeline import (
    Outcome,
    TrainSettings,
    champion_of,
    check_publishable,
    train,
)
from mlpserve_trainer.training.reproduction import reproduce
from mlpserve_trainer.training.sweep import BACKENDS, load_sweep, run_sweep, table

__all__ = ["main", "parser"]

logger = logging.getLogger(__name__)

DONE, FAILED, WRONG_USAGE, REJECTED, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 rejected, 130 interrupted.

    """
    return printing("mlpserve-trainer", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    try:
        with sigterm_as_sigint():
            return int(options.run(options))
    except UsageError as error:
        return _fail(error, WRONG_USAGE)
    except (TrainerError, StoreError) as error:
        return _fail(error, FAILED)
    except MemoryError as error:
        return _fail(f"out of memory, a smaller --hidden needs less: {error}", FAILED)
    except KeyboardInterrupt as interrupt:
        with uninterrupted():
            return _fail(
                "; ".join(("interrupted: nothing was published", *interrupt.args)), INTERRUPTED
            )


def parser() -> SettingsParser:
    """Describe the commands and their flags."""
    program = SettingsParser(
        prog="mlpserve-trainer", description="Train networks and publish them."
    )
    program.add_version()
    commands = program.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> SettingsParser:
        sub: SettingsParser = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    add_train_flags(command("train", _train, "train, publish and, if good enough, promote"))
    add_schedule_flags(command("schedule", _schedule, "train by a timetable, until stopped"))
    judge.add_flags(command("judge", judge.run, "promote, retire or roll back on evidence"))
    import_file.add_flags(
        command("import", import_file.run, "judge and publish a network of another program")
    )
    feedback.add_commands(commands.add_parser("feedback", help="review what callers corrected"))
    _add_reproduce_flags(command("reproduce", _reproduce, "train a version again and compare"))
    _add_sweep_flags(command("sweep", _sweep, "compare recipes on validation data"))
    add_cache(command("datasets", _list_datasets, "list the data sets"))
    command("recipes", _list_recipes, "list the recipes")
    return program


def _add_reproduce_flags(parser: SettingsParser) -> None:
    parser.add_argument("version", type=between(1, MAX_VERSION, int), help="number of the version")
    parser.add_store()
    parser.add_logging()
    add_places(parser)
    add_feedback(parser, "the reports that the version was trained on, if they are elsewhere now")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def _add_sweep_flags(parser: SettingsParser) -> None:
    parser.add_argument(
        "file", type=Path, help="the sweep as a TOML file: recipe, seeds, trials, [grid]"
    )
    parser.add_store()
    parser.add_logging()
    add_places(parser)
    parser.add_argument(
        "--results",
        type=Path,
        help="file of results, appended to and read again",
        shown="FILE with .jsonl at the end",
    )
    parser.add_argument(
        "--jobs",
        type=between(-1, 1024, int),
        default=-1,
        help="trainings that run at the same time; -1 is one for each core",
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default="local", help="where the trainings run"
    )
    parser.add_argument(
        "--scheduler",
        help="address of a Dask or Ray cluster; without one, a local cluster is started",
    )
    parser.add_argument(
        "--publish", action="store_true", help="train the best combination again and publish it"
    )


def _train(options: argparse.Namespace) -> int:
    settings = train_settings(options)
    set_up(options.log_format, options.log_level)
    if options.unless_published and (champion := champion_of(settings)):
        logger.info("nothing to do: there is a champion", extra={"version": champion})
        return DONE
    outcome = train(settings, _watch(options))
    _show(settings, outcome, as_json=options.json)
    return REJECTED if outcome.verdict == "REJECTED" else DONE


def _schedule(options: argparse.Namespace) -> int:
    # Imported here: what no other command needs.
    from mlpserve_trainer.schedule.health import listening
    from mlpserve_trainer.schedule.metrics import Metrics
    from mlpserve_trainer.schedule.scheduler import Schedule
    from mlpserve_trainer.schedule.triggers import timetable
    from mlpserve_trainer.schedule.worker import Job

    settings = schedule_settings(options)
    trigger = timetable(options.cron, options.every, options.time_zone, options.jitter)
    set_up(options.log_format, options.log_level)
    job = Job(settings, options.log_format, options.log_level, as_json=options.json)
    metrics = Metrics()
    schedule = Schedule(job, trigger, options.run_timeout, metrics)
    if options.judge:
        judging = judge.judge_of(options)
        schedule.repeat(lambda: metrics.count_decisions(judging.act(), time.time()), options.judge)
    with ExitStack() as stack:
        if options.health_listen:
            address = options.health_listen
            stack.enter_context(listening(address, schedule.health, metrics.registry))
        return schedule.run_forever(run_now=options.now)


def _reproduce(options: argparse.Namespace) -> int:
    set_up(options.log_format, options.log_level)
    places = DataLocations(options.data_dir, options.cache_dir)
    result = reproduce(
        Store(options.store, options.model),
        options.version,
        places,
        _watch(options),
        options.feedback,
    )
    if options.json:
        print(json.dumps(asdict(result) | {"identical": result.identical}))
    elif result.identical:
        print(f"version {result.version}: identical, {result.digest}")
    else:
        print(f"version {result.version}: weights differ by up to {result.largest_difference:.3g}")
        print("\n".join(f"  {change}" for change in result.versions))
    return DONE if result.identical else FAILED


def _sweep(options: argparse.Namespace) -> int:
    set_up(options.log_format, options.log_level)
    sweep, places = load_sweep(options.file), DataLocations(options.data_dir, options.cache_dir)
    results = options.results or options.file.with_suffix(".jsonl")
    cluster = (options.jobs, options.backend, options.scheduler)
    settings = TrainSettings(
        store=options.store,
        model=options.model,
        recipe=sweep.recipes[0],
        seed=sweep.seeds[0],
        data_dir=options.data_dir,
        cache_dir=options.cache_dir,
    )
    if options.publish:
        check_publishable(settings)
    scores = run_sweep(sweep, places, results, *cluster)
    print(table(sweep, scores))
    if not options.publish:
        return DONE
    outcome = train(replace(settings, recipe=scores[0].recipe), _watch(options))
    _show(settings, outcome, as_json=False)
    return REJECTED if outcome.verdict == "REJECTED" else DONE


def _watch(options: argparse.Namespace) -> Watch:
    for_people = sys.stderr.isatty() and options.log_format == "human"
    return show_bar if for_people else log_epochs


def _show(settings: TrainSettings, outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print(outcome.report, file=sys.stderr)
        print(json.dumps(outcome.facts()))
    else:
        print(summary(outcome, settings.store, settings.model))


def _list_datasets(options: argparse.Namespace) -> int:
    cached = has_images(DataLocations(None, options.cache_dir).cached_mnist)
    for name, source in DATASETS.items():
        print(f"{name:8} {source.description}")
    print(f"\nMNIST is {'' if cached else 'not '}in the cache, {options.cache_dir}")
    return DONE


def _list_recipes(_: argparse.Namespace) -> int:
    for name in recipe_names():
        print(f"{name:9} {load_recipe(name).description}")
    return DONE


def _fail(message: object, code: int) -> int:
    print(f"mlpserve-trainer: {message}", file=sys.stderr)
    return code
