from datetime import UTC, datetime, timedelta

import pytest

from mlpserve_trainer.cli import main
from mlpserve_trainer.schedule.triggers import timetable


def times(cron: str, start: str, count: int, zone: str = "UTC") -> list[str]:
    """The next times after `start` (UTC), each asked for as the scheduler does."""
    trigger = timetable(cron, None, zone, 0)
    now, previous = datetime.fromisoformat(start).replace(tzinfo=UTC), None
    found = []
    for _ in range(count):
        previous = trigger.get_next_fire_time(previous, now)
        now = previous
        found.append(previous.strftime("%a %m-%d %H:%M:%S %z"))
    return found


FRIDAY = "2026-11-20T12:00"


def test_five_fields_are_minutes_to_weekdays() -> None:
    assert times("15 3 * * *", FRIDAY, 2) == [
        "Sat 11-21 03:15:00 +0000",
        "Sun 11-22 03:15:00 +0000",
    ]


def test_a_sixth_field_before_them_is_seconds() -> None:
    expected = ["Fri 11-20 12:00:00 +0000", "Fri 11-20 12:00:20 +0000", "Fri 11-20 12:00:40 +0000"]
    assert times("*/20 * * * * *", FRIDAY, 3) == expected


@pytest.mark.parametrize(
    ("weekdays", "expected"),
    [
        ("0", ["Sun", "Sun"]),
        ("7", ["Sun", "Sun"]),
        ("1", ["Mon", "Mon"]),
        ("sun", ["Sun", "Sun"]),
        ("1-5", ["Mon", "Tue", "Wed", "Thu", "Fri", "Mon"]),
        ("5-7", ["Sat", "Sun", "Fri"]),
        ("fri-mon", ["Sat", "Sun", "Mon", "Fri"]),
        ("mon,wed", ["Mon", "Wed", "Mon"]),
        ("*/2", ["Sat", "Sun", "Tue", "Thu", "Sat"]),
        ("4/2", ["Sat", "Thu", "Sat"]),
        ("*", ["Sat", "Sun", "Mon"]),
    ],
)
def test_weekdays_are_those_of_crontab(weekdays: str, expected: list[str]) -> None:
    assert [t[:3] for t in times(f"0 0 * * {weekdays}", FRIDAY, len(expected))] == expected


def test_of_a_day_and_a_weekday_one_is_enough() -> None:
    days = [t[:9] for t in times("0 0 1 * 5", FRIDAY, 3)]
    assert days == ["Fri 11-27", "Tue 12-01", "Fri 12-04"]


def test_macros_have_their_meaning() -> None:
    assert times("@weekly", FRIDAY, 1) == ["Sun 11-22 00:00:00 +0000"]
    assert times("@DAILY", FRIDAY, 1) == ["Sat 11-21 00:00:00 +0000"]


def test_the_time_zone_is_the_one_asked_for() -> None:
    assert times("0 3 * * *", FRIDAY, 1, "Asia/Tokyo") == ["Sat 11-21 03:00:00 +0900"]


def test_a_daily_run_stays_at_its_hour_when_clocks_change() -> None:
    before_summer, before_winter = "2026-03-28T12:00", "2026-10-24T12:00"
    assert times("0 4 * * *", before_summer, 1, "Europe/Berlin") == ["Sun 03-29 04:00:00 +0200"]
    assert times("0 4 * * *", before_winter, 1, "Europe/Berlin") == ["Sun 10-25 04:00:00 +0100"]


def test_an_hour_that_does_not_exist_comes_one_later_and_once() -> None:
    trigger = timetable("30 2 * * *", None, "Europe/Berlin", 0)
    now = datetime.fromisoformat("2026-03-28T12:00").replace(tzinfo=UTC)
    first = trigger.get_next_fire_time(None, now)
    assert first.astimezone(UTC).isoformat() == "2026-03-29T01:30:00+00:00"
    second = trigger.get_next_fire_time(first, first)
    assert second.isoformat() == "2026-03-30T02:30:00+02:00"


def test_an_hour_that_comes_twice_counts_once() -> None:
    expected = ["Sun 10-25 02:30:00 +0200", "Mon 10-26 02:30:00 +0100"]
    assert times("30 2 * * *", "2026-10-24T12:00", 2, "Europe/Berlin") == expected


def test_every_hour_means_both_of_them() -> None:
    expected = ["Sun 10-25 02:00:00 +0200", "Sun 10-25 02:00:00 +0100"]
    assert times("0 * * * *", "2026-10-24T23:30", 2, "Europe/Berlin") == expected


@pytest.mark.parametrize(("cron", "every"), [("0 0 * * *", None), (None, 3600.0)])
def test_jitter_is_added_up_to_its_limit(cron: str | None, every: float | None) -> None:
    now = datetime(2026, 11, 20, 23, tzinfo=UTC)
    trigger = timetable(cron, every, jitter=100)
    plain = timetable(cron, every).get_next_fire_time(None, now)
    delays = [trigger.get_next_fire_time(None, now) - plain for _ in range(50)]
    # An interval counts from when it was made: a moment between the two.
    assert all(timedelta(seconds=-5) <= delay <= timedelta(seconds=101) for delay in delays)
    assert max(delays) - min(delays) > timedelta(seconds=20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of --cron"),
        (("--cron", "@daily", "--every", "1d"), "give one of --cron"),
        (("--cron", "* * * *"), "expected five fields"),
        (("--cron", "61 * * * *"), "61"),
        (("--cron", "0 3 * * 8"), "expected weekdays as 1, 1-5"),
        (("--cron", "0 3 x * *"), 'Unrecognized expression "x" for field "day"'),
        (("--cron", "0 0 31 2 *"), "never comes"),
        (("--cron", "@daily", "--time-zone", "Mars/Olympus"), "unknown time zone 'Mars/Olympus'"),
        (("--every", "1d", "--health-listen", "9101"), "expected HOST:PORT"),
        (("--every", "1d", "--force"), "--force and --reason go together"),
        (("--every", "1d", "--recipe", "qick"), "did you mean 'quick'"),
        (("--every", "1d", "--time-zone", "Asia/Tokyo"), "--time-zone is for --cron"),
        (("--every", "1d", "--unless-published"), "--unless-published is for `train`"),
        (("--every", "1d", "--always", "--unless-unchanged"), "they contradict each other"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage_at_once(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schedule", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--every", "--jitter", "--run-timeout"])
@pytest.mark.parametrize("text", ["soon", "-1", "5x", "1e3"])
def test_a_duration_that_is_none_is_wrong_usage(
    flag: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["schedule", f"{flag}={text}"])
    assert end.value.code == 2
    assert "expected 90s, 5m, 6h or 1d" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--every=0.5s", "0.5s is not a duration from 1s to 366d"),
        ("--jitter=367d", "367d is not a duration from 0s to 366d"),
        ("--run-timeout=0", "0 is not a duration from 1s to 20d"),
        ("--run-timeout=30d", "30d is not a duration from 1s to 20d"),
        (f"--every={'9' * 400}d", "is not a duration from 1s to 366d"),
    ],
)
def test_a_duration_out_of_range_is_wrong_usage(
    argument: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["schedule", argument])
    assert end.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("zone", "eve"),
    [
        ("Asia/Beirut", "2026-03-28"),
        ("Africa/Cairo", "2026-04-23"),
        ("America/Havana", "2026-03-07"),
        ("America/Santiago", "2026-09-05"),
    ],
)
def test_a_midnight_that_the_clock_skips_comes_an_hour_later(zone: str, eve: str) -> None:
    hours = [time.split()[2] for time in times("@daily", f"{eve}T12:00", 3, zone)]
    assert sorted(hours) == ["00:00:00", "00:00:00", "01:00:00"]
    days = {time.split()[1] for time in times("@daily", f"{eve}T12:00", 3, zone)}
    assert len(days) == 3


def test_a_week_that_begins_with_a_skipped_midnight_is_not_lost() -> None:
    assert times("@weekly", "2026-03-27T12:00", 1, "Asia/Beirut") == ["Sun 03-29 01:00:00 +0300"]


@pytest.mark.parametrize("cron", ["30 2 * * *", "*/7 1-3 * * *", "0 0 * * *", "*/20 * * * *"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "Asia/Beirut"])
@pytest.mark.parametrize("start", ["2026-03-28T10:00", "2026-10-24T10:00", "2026-04-04T10:00"])
def test_times_always_go_forward(cron: str, zone: str, start: str) -> None:
    trigger = timetable(cron, None, zone, 0)
    now, previous = datetime.fromisoformat(start).replace(tzinfo=UTC), None
    for _ in range(60):
        due = trigger.get_next_fire_time(previous, now)
        assert due.astimezone(UTC) >= now
        assert previous is None or due.astimezone(UTC) > previous.astimezone(UTC)
        now = previous = due


def test_a_duration_without_a_unit_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["schedule", "--every", "5"])
    assert end.value.code == 2
    assert "5 has no unit: expected 5s, 5m, 5h or 5d" in capsys.readouterr().err
