import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import CHAMPION
from mlpserve_trainer.cli import main
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.schedule.metrics import Metrics
from mlpserve_trainer.schedule.scheduler import Schedule
from mlpserve_trainer.schedule.triggers import timetable
from mlpserve_trainer.schedule.worker import Job
from mlpserve_trainer.training.pipeline import TrainSettings
from tests.support.reports import League
from tests.support.server import Page
from tests.support.waiting import eventually
from tests.trainer.schedule.conftest import Scheduled, Start, write

ENDLESS = ("--epochs", "1000000")


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def port_of(running: Scheduled) -> int:
    address: str = running.event("health and metrics")["address"]
    return int(address.rpartition(":")[2])


def is_gone(pid: int) -> bool:
    """Whether a process has ended, for ten seconds at most."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_it_also_judges_what_callers_reported(schedule: Start, tmp_path: Path) -> None:
    league = League(tmp_path)
    league.add(9, "ant", "bee", "bee")
    judging = ("--model", "zoo", "--judge", "1s", "--feedback", str(tmp_path / "feedback"))
    health = ("--health-listen", "127.0.0.1:0")
    with schedule("--cron", "0 0 1 1 *", *judging, *health) as running:
        port = port_of(running)
        assert running.event("decided")["action"] == "promote"

        def counted() -> list[float]:
            page = Page(f"http://127.0.0.1:{port}/metrics")
            actions = ("promote", "retire", "rollback")
            return [page("mlpserve_trainer_decisions_total", action=action) for action in actions]

        eventually(lambda: counted() == [1, 0, 0])
        page = Page(f"http://127.0.0.1:{port}/metrics")
        assert time.time() - 60 < page("mlpserve_trainer_last_decision_timestamp_seconds")
        assert running.stop() == 0
    assert league.store.aliases() == {CHAMPION: 2}


def test_judging_needs_a_place_of_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "--every", "1h", "--judge", "1m"]) == 2
    assert "--judge and --feedback go together" in capsys.readouterr().err


def test_it_trains_at_its_times_and_skips_what_is_unchanged(schedule: Start) -> None:
    with schedule("--cron", "*/2 * * * * *", "--json") as running:
        assert running.event("next run")["at"].endswith("+00:00")
        first, second = running.event("run ended"), running.event("run ended")
        assert running.stop() == 0
        assert not any("no checkpoint" in event["event"] for event in running.events)
        outcomes = [json.loads(line) for line in running.process.stdout]
    assert (first["status"], first["version"], first["exit_code"]) == ("promoted", 1, 0)
    assert (second["status"], second["reason"]) == (
        *("unchanged", "data and recipe are those of version 1"),
    )
    assert running.store.versions() == [1]
    recorded = running.history()[0]
    assert (recorded["status"], recorded["version"], recorded["exit_code"]) == ("promoted", 1, 0)
    assert recorded["seconds"] == first["seconds"] > 0
    assert [outcome["verdict"] for outcome in outcomes[:2]] == ["PROMOTED", "UNCHANGED"]


def test_always_trains_what_is_unchanged_as_well(schedule: Start) -> None:
    with schedule("--every", "1s", "--now", "--always") as running:
        assert [running.event("run ended")["version"] for _ in range(2)] == [1, 2]
        running.stop()


def test_new_data_is_trained_on_at_the_next_time(
    schedule: Start, tmp_path: Path, stripes: Dataset
) -> None:
    with schedule("--every", "1s", "--now") as running:
        assert running.event("run ended")["status"] == "promoted"
        np.savez(tmp_path / "new.npz", X=255 - stripes.inputs, y=stripes.labels)
        (tmp_path / "new.npz").rename(tmp_path / "stripes.npz")
        while (ended := running.event("run ended"))["status"] == "unchanged":
            pass
        assert (ended["status"], ended["version"]) == ("promoted", 2)
        running.stop()


def test_a_file_dropped_meanwhile_is_taken_up_and_a_bad_one_moved_aside(
    schedule: Start, tmp_path: Path, stripes: Dataset
) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    with schedule("--every", "1s", "--now", "--dataset", f"npz+npz:{drop}") as running:
        assert running.event("run ended")["version"] == 1
        for name, labels in (("good", stripes.labels[:9]), ("bad", ["x"] * 9)):
            np.savez(tmp_path / f"{name}.npz", X=255 - stripes.inputs[:9], y=labels)
            (tmp_path / f"{name}.npz").rename(drop / f"{name}.npz")
        while (ended := running.event("run ended"))["status"] == "unchanged":
            pass
        running.stop()
    assert (ended["status"], ended["version"]) == ("promoted", 2)
    assert "unknown labels 'x'" in (drop / ".rejected/bad.npz.reason.txt").read_text()
    (file,) = running.store.manifest(2).extra["sources"][1]["files"]
    assert file["name"] == "good.npz"


def test_now_does_not_wait_and_takes_corrections_whose_receipts_are_verified(
    schedule: Start, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k" * 40)
    keys.chmod(0o600)
    verified = ("--corrections", str(tmp_path / "feedback"), "--receipt-keys", str(keys))
    with schedule("--every", "9d", "--now", *verified) as running:
        assert running.event("run ended")["status"] == "promoted"
        assert 9 * 86400 - 600 < running.event("next run")["in_seconds"] < 9 * 86400
        assert running.stop(signal.SIGINT) == 0


def test_a_rejected_version_is_told_by_its_exit_code(schedule: Start) -> None:
    with schedule("--every", "9d", "--now", "--learning-rate", "1e-9") as running:
        ended = running.event("run ended")
        running.stop()
    assert (ended["status"], ended["exit_code"], ended["version"]) == ("rejected", 3, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_and_the_next_start_goes_on(
    schedule: Start, number: signal.Signals
) -> None:
    with schedule("--every", "9d", "--now", *ENDLESS) as running:
        running.event("epoch ended", epoch=2)
        assert running.stop(number) == 0
    (run,) = running.history()
    assert (run["status"], run["exit_code"], run["version"]) == ("interrupted", 130, None)
    assert running.store.versions() == []
    with schedule("--every", "9d", *ENDLESS) as running:
        running.event("resuming the interrupted run")
        assert running.event("resuming from a checkpoint")["epoch"] >= 2
        assert running.stop(number) == 0


def test_a_damaged_checkpoint_ends_no_schedule(schedule: Start, tmp_path: Path) -> None:
    with schedule("--every", "9d", "--now", "--epochs", "300") as running:
        running.event("epoch ended", epoch=2)
        running.stop()
    (checkpoint,) = (tmp_path / "cache/checkpoints").glob("*.npz")
    checkpoint.write_bytes(b"no checkpoint")
    with schedule("--every", "9d", "--epochs", "300") as running:
        assert "is damaged" in running.event("training from the start")["reason"]
        assert running.event("run ended")["status"] == "promoted"
        running.stop()


def test_a_second_signal_ends_it_at_once_with_its_run(schedule: Start) -> None:
    with schedule("--every", "9d", "--now", *ENDLESS) as running:
        child = running.event("epoch ended", epoch=1)["process"]
        os.kill(child, signal.SIGSTOP)  # it can neither go on nor end
        running.process.send_signal(signal.SIGTERM)
        running.event("stopping")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 128 + signal.SIGTERM
    assert is_gone(child)


def test_a_run_does_not_outlive_a_killed_schedule(schedule: Start) -> None:
    with schedule("--every", "9d", "--now", *ENDLESS) as running:
        child = running.event("epoch ended", epoch=1)["process"]
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    assert is_gone(child)


def test_a_failing_run_does_not_end_the_schedule(
    schedule: Start, tmp_path: Path, stripes: Dataset
) -> None:
    data = tmp_path / "stripes.npz"
    data.write_bytes(b"no data")
    with schedule("--every", "1s", "--now") as running:
        ended = running.event("run ended")
        write(tmp_path / "whole.npz", stripes)
        (tmp_path / "whole.npz").rename(data)
        while running.event("run ended")["status"] == "failed":
            pass
        running.stop()
    assert (ended["level"], ended["status"], ended["exit_code"]) == ("error", "failed", 1)
    assert f"{data} cannot be read as .npz" in ended["reason"]
    assert running.store.aliases() == {CHAMPION: 1}
    assert running.statuses()[0] == "failed"
    assert "promoted" in running.statuses()


def test_a_crash_does_not_end_the_schedule(schedule: Start) -> None:
    with schedule("--every", "1s", "--now", "--epochs", "300") as running:
        os.kill(running.event("epoch ended", epoch=1)["process"], signal.SIGKILL)
        crashed, next_one = running.event("run ended"), running.event("run ended")
        running.stop()
    assert (crashed["status"], crashed["exit_code"]) == ("failed", 128 + signal.SIGKILL)
    assert crashed["reason"] == "killed by SIGKILL, possibly out of memory"
    assert next_one["status"] == "promoted"


@contextmanager
def scheduled_four_times(schedule: Start) -> Iterator[tuple[Scheduled, datetime]]:
    """Run a schedule of four seconds in one minute, and none for the rest of the hour."""
    for seconds_to_start in (4, 16, 64):
        first = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds_to_start)
        if first.second > 56:
            first += timedelta(seconds=60 - first.second)
        seconds = ",".join(str(first.second + i) for i in range(4))
        cron = f"{seconds} {first.minute} * * * *"
        with schedule("--cron", cron, "--epochs", "300") as running:
            if running.event("next run")["in_seconds"] < 100:
                yield running, first
                return
    raise AssertionError("the schedule took a minute to start")


@pytest.mark.timeout(300)
def test_runs_missed_during_a_run_come_once_and_after_it(schedule: Start) -> None:
    with scheduled_four_times(schedule) as (running, first):
        child = running.event("epoch ended", epoch=1)["process"]
        os.kill(child, signal.SIGSTOP)
        eventually(lambda: datetime.now(UTC) > first + timedelta(seconds=4))
        os.kill(child, signal.SIGCONT)
        assert running.event("run ended")["status"] == "promoted"
        assert running.count("run started") == 1
        assert running.event("run ended")["status"] == "unchanged"
        assert running.event("next run")["in_seconds"] > 5
        assert running.count("run started") == 2
        running.stop()


@pytest.mark.timeout(300)
def test_the_health_endpoint_tells_of_a_run_that_hung_until_one_did_not(schedule: Start) -> None:
    arguments = ("--every", "1s", "--run-timeout", "12s", "--health-listen", "127.0.0.1:0")
    with schedule(*arguments, "--epochs", "100") as running:
        port = port_of(running)
        status, body = get(port, "/healthz")
        assert (status, json.loads(body)["status"]) == (200, "ok")
        child = running.event("epoch ended", epoch=1)["process"]
        os.kill(child, signal.SIGSTOP)
        assert json.loads(get(port, "/healthz")[1])["running_seconds"] > 0
        running.event("ending a run that takes too long")
        os.kill(child, signal.SIGCONT)
        ended = running.event("run ended")
        assert (ended["status"], ended["level"]) == ("timed_out", "error")
        status, body = get(port, "/healthz")
        assert (status, json.loads(body)["status"]) == (503, "the last run hung")
        while running.event("run ended")["status"] == "timed_out":
            pass  # on a machine that is very busy; each goes on where the last one was ended
        assert get(port, "/healthz")[0] == 200
        running.stop()
    assert running.statuses()[0] == "timed_out"
    assert "promoted" in running.statuses()


def test_metrics_tell_how_runs_ended_and_how_long_they_took(schedule: Start) -> None:
    with schedule("--every", "1h", "--now", "--health-listen", "127.0.0.1:0") as running:
        port = port_of(running)
        seconds = running.event("run ended")["seconds"]
        running.event("next run")
        status, text = get(port, "/metrics")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        assert get(port, "/")[0] == 404
        running.stop()
    assert status == 200
    prefix = "mlpserve_trainer_"
    assert float(values[prefix + 'runs_total{status="promoted"}']) == 1
    assert float(values[prefix + 'runs_total{status="failed"}']) == 0
    total = float(values[prefix + 'run_duration_seconds_sum{status="promoted"}'])
    assert total == seconds == float(values[prefix + "last_run_duration_seconds"])
    assert float(values[prefix + "last_run_exit_code"]) == 0
    assert float(values[prefix + "version"]) == 1
    assert float(values[prefix + "healthy"]) == 1
    assert 0 < float(values[prefix + "next_run_timestamp_seconds"]) - time.time() <= 3600


def test_a_port_that_is_taken_is_one_clear_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert main(["schedule", "--every", "1h", "--health-listen", address]) == 1
    assert f"cannot listen on {address}: Address already in use" in capsys.readouterr().err


def test_a_fault_of_the_schedule_is_counted_and_logged_and_the_next_run_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_process(job: Job) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr("mlpserve_trainer.schedule.scheduler.Run", no_process)
    settings = TrainSettings(store=tmp_path / "store")
    metrics = Metrics()
    schedule = Schedule(Job(settings), timetable(None, 3600), 60, metrics)
    for _ in range(2):
        schedule._entry.func()  # as the scheduler's thread does
    failures = "mlpserve_trainer_schedule_failures_total"
    assert metrics.registry.get_sample_value(failures) == 2
    assert [r.getMessage() for r in caplog.records] == ["a follower failed"]
