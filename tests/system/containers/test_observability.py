"""The profile `observability`, with Debian's Prometheus in the place of the official image.

Debian has no Grafana: of that only the files are checked, which it would be given.
"""

import json
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml

from tests.support.containers import Load, NewStack, Stack

SERVERS = 3
STAND_IN = "mlpserve-test-prometheus"
BUILD = """
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus \
 && install --directory --owner 65534 --group 65534 /prometheus && rm -rf /var/lib/apt/lists/*
"""

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


@pytest.fixture
def prometheus(engine: None) -> str:
    """The name of an image with Prometheus in it."""
    command = ["docker", "build", "--quiet", "--tag", STAND_IN, "-"]
    subprocess.run(command, input=BUILD, text=True, check=True, stdout=subprocess.PIPE)
    return STAND_IN


@pytest.fixture
def stack(new_stack: NewStack, prometheus: str) -> Stack:
    port = new_stack().environment["MLPSERVE_PORT"]
    stack = new_stack(
        servers=SERVERS, MLPSERVE_PROMETHEUS_IMAGE=prometheus, MLPSERVE_PROMETHEUS_PORT=port
    )
    profiles = ("--profile", "observability", "--profile", "schedule")
    stack.compose(*profiles, "up", "--wait", "prometheus", "schedule", "server")
    return stack


def ask(stack: Stack, path: str) -> Any:
    port = stack.environment["MLPSERVE_PROMETHEUS_PORT"]
    with urlopen(f"http://127.0.0.1:{port}/api/v1/{path}") as answer:
        return json.load(answer)["data"]


def value(stack: Stack, expression: str) -> float:
    """What an expression comes to; 0 where there is nothing yet."""
    result = ask(stack, f"query?query={quote(expression)}")["result"]
    return float(result[0]["value"][1]) if result else 0.0


def test_prometheus_finds_every_server_and_the_schedule_and_knows_the_rules(
    stack: Stack, load_on: type[Load]
) -> None:
    started = time.monotonic()
    stack.wait_for(lambda: value(stack, 'sum(up{job="mlpserve"})') == SERVERS, 60)
    stack.wait_for(lambda: value(stack, 'sum(up{job="mlpserve-schedule"})') == 1, 60)
    print(f"\nall found {time.monotonic() - started:.0f} s after the start")

    load = load_on(f"{stack.name}_default")
    calls = 'sum(mlpserve_calls_total{method="Predict",code="OK"})'
    stack.wait_for(lambda: value(stack, calls) > 100, 60)
    told = load.stop()
    answered = sum(told["counts"].values())
    stack.wait_for(lambda: value(stack, calls) == answered, 60)
    print(f"{answered} calls, as many in Prometheus")

    groups = ask(stack, "rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    assert all(rule["health"] in ("ok", "unknown") for rule in rules)
    firing = [rule["name"] for rule in rules if rule["state"] == "firing"]
    assert firing == []


def test_grafana_is_given_the_dashboard_and_where_prometheus_is(
    new_stack: NewStack,
) -> None:
    config = new_stack().compose("--profile", "observability", "config", "--format", "json")
    services = json.loads(config)["services"]
    grafana = services["grafana"]
    mounted = {each["target"]: Path(each["source"]) for each in grafana["volumes"]}

    provisioning = mounted["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load((provisioning / "dashboards/mlpserve.yml").read_text())[
        "providers"
    ]

    published = [str(port["target"]) for port in services["prometheus"]["ports"]]
    assert source["url"] == f"http://prometheus:{published[0]}"
    dashboards = mounted[provider["options"]["path"]]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    dashboard = json.loads((dashboards / Path(home).name).read_text())
    assert dashboard["title"] == "mlpserve"
    (page,) = [each for each in dashboard["templating"]["list"] if each["name"] == "web"]
    assert [link["url"] for link in dashboard["links"]] == ["${web}"]
    stack = new_stack()
    del stack.environment["MLPSERVE_WEB_PORT"]
    config = json.loads(stack.compose("config", "--format", "json"))
    (published,) = config["services"]["web"]["ports"]
    assert page["query"] == f"http://localhost:{published['published']}"
    assert {"type": "datasource", "query": source["type"]}.items() <= (
        dashboard["templating"]["list"][0].items()
    )
