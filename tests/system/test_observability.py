"""Alerts and dashboard: valid, tested, and about metrics that there are."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from mlpserve_server.observability.metrics import METRICS
from mlpserve_trainer.schedule.metrics import Metrics
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "mlpserve.json").read_text())
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
TESTS: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]


def needs(program: str) -> pytest.MarkDecorator:
    found = shutil.which(program) is not None
    return pytest.mark.skipif(not found, reason=f"{program} is not installed")


def queries() -> list[str]:
    """Every expression of the dashboard."""
    targets = [t for panel in DASHBOARD["panels"] for t in panel.get("targets", [])]
    annotations = DASHBOARD["annotations"]["list"]
    return [each["expr"] for each in (*targets, *annotations)]


def names_of_metrics() -> set[str]:
    """What servers and the schedule show, as series are called."""
    names = {"up"}
    for metric in METRICS.values():
        names.add(metric.name)
        if metric.kind == "histogram":
            names |= {f"{metric.name}{end}" for end in ("_bucket", "_sum", "_count")}
    for family in Metrics().registry.collect():
        names |= {sample.name for sample in family.samples}
    return names


@pytest.mark.parametrize("where", ["dashboard", "rules", "tests of the rules"])
def test_every_metric_that_is_named_exists(where: str) -> None:
    expressions = {
        "dashboard": queries(),
        "rules": [rule["expr"] for rule in RULES],
        "tests of the rules": [s["series"] for t in TESTS for s in t["input_series"]],
    }
    named = set(re.findall(r"\b(?:mlpserve_\w+|up)\b", " ".join(expressions[where])))
    assert len(named) > 5
    assert named <= names_of_metrics()


def test_every_label_that_is_matched_exists() -> None:
    families = Metrics().registry.collect()
    known = {"job", "instance", "le"} | {
        *(label for metric in METRICS.values() for label in metric.labels),
        *(label for family in families for sample in family.samples for label in sample.labels),
    }
    text = " ".join([*queries(), *(rule["expr"] for rule in RULES)])
    matched = set(re.findall(r'(\w+)\s*(?:=|=~|!=|!~)\s*"', text))
    grouped = re.split(r",\s*", ",".join(re.findall(r"\bby \(([^)]*)\)", text)))
    assert matched | set(grouped) <= known


def test_every_server_metric_is_on_the_dashboard() -> None:
    shown = " ".join(queries())
    beside = {"mlpserve_start_timestamp_seconds", "mlpserve_shadow_info"}
    assert {name for name in METRICS if name not in shown} == beside


def test_every_alert_is_shown_to_be_silent_to_fire_and_to_be_silent_again() -> None:
    for rule in RULES:
        stories = [
            [bool(c["exp_alerts"]) for c in checks if c["alertname"] == rule["alert"]]
            for checks in (test["alert_rule_test"] for test in TESTS)
        ]
        assert [False, True, False] in stories, rule["alert"]


def test_every_alert_stands_in_the_document_with_its_severity() -> None:
    section = (ROOT / "docs" / "operations.md").read_text().split("\n### Alerts\n")[1]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", section.split("\n### ")[0], re.MULTILINE)
    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]


@needs("promtool")
@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml")],
    ids=lambda command: command[-1],
)
def test_prometheus_accepts_the_file(command: tuple[str, ...]) -> None:
    subprocess.run(["promtool", *command], cwd=PROMETHEUS, check=True, timeout=60)


@needs("promtool")
def test_each_alert_fires_and_clears() -> None:
    command = ["promtool", "test", "rules", "rules_test.yml"]
    subprocess.run(command, cwd=PROMETHEUS, check=True, timeout=110)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """A Prometheus that scrapes a server every second; gives its address."""
    server = subprocess.Popen(
        [
            *(sys.executable, "-c", "from mlpserve_server.cli import main; main()"),
            *("--store", str(tmp_path / "models"), "--listen", "127.0.0.1:0", "--workers", "1"),
            *("--metrics-listen", "127.0.0.1:0", "--log-format", "json"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr
    events = (json.loads(line) for line in server.stderr)
    page = next(e["address"] for e in events if e["event"] == "showing metrics")
    target = page.removeprefix("http://").removesuffix("/metrics")
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / "rules.yml")]
    config["scrape_configs"] = [{"job_name": "mlpserve", "static_configs": [{"targets": [target]}]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    log = tmp_path / "log"
    with log.open("w") as output:
        prometheus = subprocess.Popen(
            [
                "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                "--web.listen-address=127.0.0.1:0",
            ],
            cwd=tmp_path, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield f"http://{_address(log)}"
    finally:
        for process in (prometheus, server):
            process.kill()
            process.wait()
        server.stderr.close()


def _address(log: Path) -> str:
    """Where Prometheus listens, which it logs."""
    listening = re.compile(r'msg="Listening on" address=(\S+)')
    wait_for(lambda: bool(listening.search(log.read_text())), 30)
    return str(listening.findall(log.read_text())[0])


def _scrapes(address: str) -> bool:
    """Whether it has scraped the server; until it is ready itself it answers 503."""
    with suppress(HTTPError):
        return bool(_ask(address, 'mlpserve_workers{job="mlpserve"} == 1'))
    return False


def _ask(address: str, query: str) -> list[Any]:
    with urlopen(f"{address}/api/v1/query?{urlencode({'query': query})}", timeout=30) as response:
        answer = json.load(response)
    result: list[Any] = answer["data"]["result"]
    return result


@needs("prometheus")
def test_a_real_prometheus_scrapes_a_server_and_evaluates_every_query(prometheus: str) -> None:
    wait_for(lambda: _scrapes(prometheus), 60)
    for query in queries():
        query = query.replace("$instance", ".*").replace("$__rate_interval", "1m")
        _ask(prometheus, query)  # a query that is none is HTTP's 400
    with urlopen(f"{prometheus}/api/v1/rules", timeout=30) as response:
        groups = json.load(response)["data"]["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == {
        rule["alert"] for rule in RULES
    }
    assert all(rule["health"] != "err" for group in groups for rule in group["rules"])
