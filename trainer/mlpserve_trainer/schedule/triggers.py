"""Timetables: cron expressions and intervals, as crontab(5) reads them.

APScheduler computes the times. This module changes what crontab(5) defines differently: weekday 0
is Sunday, a day matches if either the day of the month or the weekday does, and an hour that comes
twice, when summer time ends, counts once, unless the expression means every hour.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from mlpserve_trainer.errors import UsageError

__all__ = ["timetable"]

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS = ("second", "minute", "hour", "day", "month", "day_of_week")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_TICK = timedelta(microseconds=1)
_WEEKDAY = "|".join(("[0-7]", *WEEKDAYS))
_WEEKDAYS = re.compile(rf"(?:\*|({_WEEKDAY})(?:-({_WEEKDAY}))?)(?:/([1-7]))?")


def timetable(
    cron: str | None, every: float | None, zone_name: str | None = None, jitter: float = 0
) -> Any:
    """Return APScheduler's trigger for a cron expression, or for an interval in seconds.

    Args:
        cron: Five fields (minute, hour, day, month, weekday), six with seconds first, or a macro
            such as @daily.
        every: The interval in seconds, instead of `cron`.
        zone_name: The time zone of `cron`, UTC if it is None.
        jitter: The maximum random delay of each run, in seconds.

    Raises:
        UsageError: Anything else, or a time that never comes.
    """
    zone = _zone(zone_name or "UTC")
    if (cron is None) == (every is None):
        raise UsageError('give one of --cron, as --cron "0 3 * * *", and --every, as --every 6h')
    if every is not None:
        if zone_name is not None:
            raise UsageError("--time-zone is for --cron: an interval is the same in every zone")
        every = cast(int, every)  # a part of a second is fine as well, which nobody says
        return IntervalTrigger(seconds=every, timezone=zone, jitter=jitter or None)
    assert cron is not None
    try:
        triggers = [_Once(**fields, timezone=zone) for fields in _cron_fields(cron)]
    except ValueError as error:
        raise UsageError(f"--cron {cron!r}: {error}") from error
    trigger = OrTrigger(triggers, jitter=jitter or None)
    if trigger.get_next_fire_time(None, datetime.now(zone)) is None:
        raise UsageError(f"--cron {cron!r} never comes")
    return trigger


class _Once(CronTrigger):  # type: ignore[misc]  # it has no types
    """A CronTrigger that keeps wall-clock times when the clock changes.

    An hour that comes twice counts once, the first time; a time that the clock skips comes as much
    later as the clock was moved. APScheduler alone drops the skipped one, and with it `@daily`
    where summer time begins at midnight. An expression of every hour follows the sun instead.
    """

    __slots__ = ("every_hour", "zone")

    def __init__(self, hour: str, timezone: ZoneInfo, **fields: Any) -> None:
        self.every_hour, self.zone = hour.startswith("*"), timezone
        super().__init__(
            hour=hour, timezone=timezone if self.every_hour else ZoneInfo("UTC"), **fields
        )

    def get_next_fire_time(
        self, previous_fire_time: datetime | None, now: datetime
    ) -> datetime | None:
        """As in APScheduler."""
        if self.every_hour:
            due: datetime | None = super().get_next_fire_time(previous_fire_time, now)
            return due
        start = now.astimezone(UTC)
        if previous_fire_time:
            previous = previous_fire_time.astimezone(UTC)
            start = previous + _TICK if start >= previous else start
        # Searched by the clock on the wall, as if it were UTC, which has no gaps.
        wall = start.astimezone(self.zone).replace(tzinfo=UTC, fold=0)
        while (due := super().get_next_fire_time(None, wall)) is not None:
            at = due.replace(tzinfo=self.zone).astimezone(UTC)
            if at >= start:
                return cast(datetime, at.astimezone(self.zone))
            wall = due.astimezone(UTC) + _TICK
        return None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"unknown time zone {name!r}: expected UTC or a name such as Europe/Berlin"
        ) from error


def _cron_fields(text: str) -> list[dict[str, str]]:
    """Return the fields as APScheduler has them, twice where day or weekday is enough."""
    words = MACROS.get(text.strip().lower(), text).lower().split()
    if len(words) == 5:
        words = ["0", *words]
    if len(words) != 6:
        raise ValueError(
            "expected five fields (minute hour day month weekday), or six with seconds first, "
            f"got {len(words)}"
        )
    fields: dict[str, str] = dict(zip(FIELDS, words, strict=True))
    fields["day_of_week"] = _weekdays(fields["day_of_week"])
    if fields["day"].startswith("*") or fields["day_of_week"] == "*":
        return [fields]
    return [fields | {"day": "*"}, fields | {"day_of_week": "*"}]


def _weekdays(text: str) -> str:
    """Name the weekdays of a field: "0,5-7" is "sun,fri,sat,sun"."""
    if text == "*":
        return text
    return ",".join(WEEKDAYS[day % 7] for part in text.split(",") for day in _days(part))


def _days(part: str) -> range:
    match = _WEEKDAYS.fullmatch(part)
    if not match:
        raise ValueError(f"expected weekdays as 1, 1-5, mon-fri or sat,sun, got {part!r}")
    first, last, step = match.groups()
    low = _day(first) if first else 0
    # As in crontab, 2/2 goes on to the end of the week.
    high = _day(last) if last else 6 if step or not first else low
    if high < low:
        high += 7  # fri-mon, and 5-0
    return range(low, high + 1, int(step or 1))


def _day(text: str) -> int:
    return WEEKDAYS.index(text) if text in WEEKDAYS else int(text)
