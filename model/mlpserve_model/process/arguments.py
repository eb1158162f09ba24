"""Settings of the programs, declared once, given by flags or environment variables.

`--poll-seconds` is `MLPSERVE_POLL_SECONDS`; flags take precedence. The same parser reads both.
`--help` and docs/reference/settings.md are generated from the declarations.
"""

import argparse
import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mlpserve_model.format.errors import StoreError
from mlpserve_model.format.manifest import NAME
from mlpserve_model.process.help import PrintVersion, ShortUsage
from mlpserve_model.process.log import FORMATS, LEVELS
from mlpserve_model.store.location import Location, parse_location

__all__ = [
    "MAX_VERSION",
    "PREFIX",
    "Described",
    "LogSettings",
    "SettingsParser",
    "StoreSettings",
    "between",
    "duration",
    "location",
    "setting",
    "variable_of",
]

PREFIX = "MLPSERVE_"
MAX_VERSION = 10**18 - 1  # its folder has a name of 18 digits
_DAY = 86400
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": _DAY}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no")


def setting(default: Any, text: str, **options: Any) -> Any:
    """Declare a setting as the field of a dataclass.

    Args:
        default: value if neither flag nor variable is given.
        text: line in `--help` and in the reference, which can be understood by itself.
        options: arguments of SettingsParser.add_argument: type, choices, shown.

    """
    return dataclasses.field(default=default, metadata={"help": text, **options})


def location(text: str) -> Location:
    """Parse the place of a store or of reports: a folder or the address of a bucket."""
    try:
        return parse_location(text)
    except StoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def model_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"the model name {text!r} must match {NAME.pattern}")
    return text


@dataclass(frozen=True, kw_only=True)
class PlaceSettings:
    """A store."""

    store: Location = setting(
        Path("models"),
        "the store: a folder, or s3://, gs:// or az:// with BUCKET/PREFIX",
        type=location,
    )


@dataclass(frozen=True, kw_only=True)
class StoreSettings(PlaceSettings):
    """A model in a store."""

    model: str = setting("mnist", "name of the model in the store", type=model_name)


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Format and level of the log."""

    log_format: str = setting(
        "human", "log format; auto is human at a terminal and json elsewhere", choices=FORMATS
    )
    log_level: str = setting("info", "minimum log level", choices=LEVELS)


@dataclass(frozen=True)
class Described:
    """The meaning of an argument, and its default in words, for the reference."""

    help: str
    default: str


class SettingsParser(argparse.ArgumentParser):
    """An ArgumentParser that also reads its long options from environment variables.

    `--help` shows the default and the variable of each option. A switch is set by 1, true or yes.
    Wrong usage ends the process with exit code 2. `described` has the descriptions of the arguments
    by their names.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)  # a typing error would be taken for another flag
        kwargs.setdefault("formatter_class", ShortUsage)
        self.described: dict[str, Described] = {}
        super().__init__(*args, **kwargs)

    def add_argument(self, *names: Any, shown: str | None = None, **kwargs: Any) -> argparse.Action:
        """Add an argument; its help also shows the default and the variable.

        Args:
            names: as in argparse.
            shown: the default in words, if it depends on the machine.
            kwargs: as in argparse.

        """
        action = super().add_argument(*names, **kwargs)
        unset = action.default is None or action.default is False
        default = shown or ("" if unset else str(action.default))
        self.described[action.dest] = Described(action.help or "", default)
        if variable := variable_of(action):
            default = f"default: {default}; " if default else ""
            action.help = f"{action.help or ''} [{default}{variable}]".replace("%", "%%").strip()
        return action

    def add_settings(self, declared: type[Any], **defaults: Any) -> None:
        """Add a flag for every field of a dataclass that is declared by `setting`.

        Args:
            declared: the dataclass.
            defaults: replace the declared defaults, by the names of the fields.

        """
        for field in dataclasses.fields(declared):
            if "help" in field.metadata:
                options = dict(field.metadata)
                default = defaults.get(field.name, field.default)
                if isinstance(default, bool):
                    options["action"] = "store_true"
                default = ",".join(default) if isinstance(default, tuple) else default
                flag = f"--{field.name.replace('_', '-')}"
                self.add_argument(flag, default=default, **options)

    def add_version(self) -> None:
        """Add --version."""
        self.add_argument("--version", action=PrintVersion, help="print the version")

    def add_store(self) -> None:
        """Add --store and --model."""
        self.add_settings(StoreSettings)

    def add_logging(self) -> None:
        """Add --log-format and --log-level."""
        self.add_settings(LogSettings)

    def parse_known_args(  # type: ignore[override]  # argparse's overloads say no more than this
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse the arguments, preceded by those from the environment."""
        given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args([*self._from_environment(), *given], namespace)

    def parse_args(  # type: ignore[override]  # as above
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse the arguments; an option that is not known ends with the nearest one that is."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown := [word for word in unknown if word != "--"]:  # which ends the flags alone
            known = [f"--{name.replace('_', '-')}" for name in vars(options)]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            program = self._chosen([*(sys.argv[1:] if args is None else args)])
            program.error(f"unrecognized argument {unknown[0]}{hint}")
        return options

    def _chosen(self, given: Sequence[str]) -> argparse.ArgumentParser:
        """Return the parser of the command that was given, this one without commands."""
        for action in self._actions:
            if isinstance(action.choices, Mapping):
                return next(
                    (action.choices[word] for word in given if word in action.choices), self
                )
        return self

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and one line, which names the variables that are set as possible causes.

        The lines of usage would hide it.
        """
        if message.startswith("argument COMMAND: invalid choice"):
            message += "; options come after the command"  # which an option's value was taken for
        used = [v for v in map(variable_of, self._actions) if v and v in os.environ]
        message += f" (set in the environment: {', '.join(used)})" if used else ""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse ignores every error of a write; a help longer than a buffer would be lost so.
        if file is not None and file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # Before Python 3.13 argparse drops the value of `--option=--` and goes on with a list.
        if action.nargs is None and arg_strings == ["--"]:
            value = self._get_value(action, "--")
            self._check_value(action, value)
            return value
        return super()._get_values(action, arg_strings)

    def _from_environment(self) -> list[str]:
        arguments = []
        for action in self._actions:
            variable = variable_of(action)
            if variable and (value := os.environ.get(variable)) is not None:
                arguments += self._as_arguments(action, variable, value)
        return arguments

    def _as_arguments(self, action: argparse.Action, variable: str, value: str) -> list[str]:
        if action.nargs != 0:
            # An empty variable counts as unset: compose files pass ${NAME:-} through.
            return [f"{action.option_strings[-1]}={value}"] if value else []
        if value.lower() not in _TRUE + _FALSE:
            self.error(f"{variable} is {value!r}, expected one of {', '.join(_TRUE + _FALSE[1:])}")
        return [action.option_strings[-1]] if value.lower() in _TRUE else []


def between(low: float, high: float, kind: type[int] | type[float] = float) -> Any:
    """Return a parser of numbers from `low` to `high`; its attribute `accepts` is the range.

    Every number has an upper bound. Without one, a wait can overflow the system's timers long after
    the start.
    """

    def number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text} is not a number from {_shown(low)} to {_shown(high)}"
            )
        return value

    number.__name__ = kind.__name__  # argparse puts it into its message
    vars(number)["accepts"] = f"{_shown(low)} to {_shown(high)}"  # for the reference
    return number


def duration(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of durations from `low` to `high` seconds, such as 90s, 5m, 6h or 1d."""

    def seconds(text: str) -> float:
        """Return the seconds of 90s, 5m, 6h or 1d."""
        match = _DURATION.fullmatch(text)
        if not match:
            raise argparse.ArgumentTypeError(
                f"invalid duration {text!r}: expected 90s, 5m, 6h or 1d"
            )
        if not match[2] and float(match[1]):
            raise argparse.ArgumentTypeError(
                f"{text} has no unit: expected {text}s, {text}m, {text}h or {text}d"
            )
        value = float(match[1]) * _UNITS[match[2]]
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text} is not a duration from {low:g}s to {high / _DAY:g}d"
            )
        return value

    vars(seconds)["accepts"] = f"{low:g}s to {high / _DAY:g}d"  # for the reference
    return seconds


def _shown(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def variable_of(action: argparse.Action) -> str | None:
    """Return the variable of a long option; None for --help, --version and internal options."""
    name = action.option_strings[-1] if action.option_strings else ""
    internal = action.help is argparse.SUPPRESS
    acts = isinstance(action, argparse._HelpAction | argparse._VersionAction)
    if internal or acts or not name.startswith("--"):
        return None
    return PREFIX + name[2:].upper().replace("-", "_")
