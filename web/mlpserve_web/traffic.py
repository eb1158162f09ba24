"""Live traffic for the page: the few of the model servers' metrics that a person looks at."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from mlpserve_model.store.evidence.statistics import confidence_sequence
from mlpserve_web.errors import HttpError

__all__ = ["read_traffic", "replicas", "summary"]

_TIMEOUT = 2.0  # seconds for one page of metrics
_MAX_BYTES = 16 << 20
# As the alert has it: many evaluations a day, each at four signals.
DRIFT_P = 1e-6


class _Version(NamedTuple):
    """A version, by the labels of a metric."""

    model: str
    version: str


async def read_traffic(addresses: Sequence[str]) -> dict[str, Any]:
    """Return what the servers have done since their start, all together.

    Raises:
        HttpError: 503, one of the pages cannot be read.

    """
    try:
        found = await asyncio.gather(*(asyncio.to_thread(replicas, each) for each in addresses))
        reads = (asyncio.to_thread(_read, each) for each in chain.from_iterable(found))
        pages = await asyncio.gather(*reads)
        # On a thread: parsing takes milliseconds, in which others would wait.
        return await asyncio.to_thread(summary, (s for page in pages for s in _samples(page)))
    except (OSError, ValueError, KeyError, OverflowError) as error:  # of another kind of page too
        reason = error.reason if isinstance(error, URLError) else error
        raise HttpError(503, f"the metrics cannot be read: {reason}") from error


def summary(samples: Iterable[Sample]) -> dict[str, Any]:
    """Return the totals that the page makes rates of: calls, errors, durations, rows, evidence."""
    calls: Counter[str] = Counter()
    durations: Counter[float] = Counter()
    classes: Counter[str] = Counter()
    shadows: dict[_Version, Counter[str]] = {}
    audited: dict[_Version, Counter[str]] = {}
    drifts: dict[_Version, dict[str, float]] = {}
    for sample in samples:
        labels = sample.labels
        match sample.name:
            case "mlpserve_calls_total":
                calls["all"] += int(sample.value)
                calls["failed"] += int(sample.value) if labels["code"] != "OK" else 0
            case "mlpserve_call_seconds_bucket":
                durations[float(labels["le"])] += int(sample.value)
            case "mlpserve_predictions_total":
                classes[labels["class"]] += int(sample.value)
            case "mlpserve_shadow_rows_total":
                rows = shadows.setdefault(_version(labels), Counter())
                rows[labels["result"]] += int(sample.value)
            case "mlpserve_reports_total" if labels["kind"] == "audit":
                answers = audited.setdefault(_version(labels), Counter())
                answers[labels["answer"]] += int(sample.value)
            case "mlpserve_drift_p_value":
                least = drifts.setdefault(_version(labels), {})
                signal = labels["signal"]
                least[signal] = min(sample.value, least.get(signal, 1.0))
    bounds = sorted(durations)
    return {
        "calls": calls["all"],
        "failed": calls["failed"],
        # Without the last, which is infinite and not a number in JSON.
        "seconds": {"bounds": bounds[:-1], "counts": [durations[bound] for bound in bounds]},
        "classes": [{"name": name, "rows": rows} for name, rows in classes.most_common(10)],
        "shadows": [
            version._asdict() | {"agreed": rows["agreed"], "differed": rows["differed"]}
            for version, rows in shadows.items()
        ],
        "audits": [_audit(version, answers) for version, answers in audited.items()],
        "drifts": [
            version._asdict() | {"signals": [s for s, p in least.items() if p < DRIFT_P]}
            for version, least in drifts.items()
        ],
    }


def _audit(version: _Version, answers: Counter[str]) -> dict[str, Any]:
    """Return the accuracy among audited reports, with bounds that hold at all times together."""
    right, rows = answers["right"], answers.total()
    low, high = confidence_sequence(right, rows)
    return version._asdict() | {"right": right, "rows": rows, "low": low, "high": high}


def _version(labels: Mapping[str, str]) -> _Version:
    return _Version(labels.get("model", ""), labels["version"])  # older servers name no model


def replicas(address: str) -> list[str]:
    """Return the pages of all servers that share a name, such as the replicas of a service.

    One of them at a time would make the counters fall and rise. HTTPS has certificates for names.
    """
    parts = urlsplit(address)
    port = parts.port or 80
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    hosts = sorted({place[0] for family, *_, place in found if family == socket.AF_INET})
    if parts.scheme != "http" or len(hosts) < 2:
        return [address]
    return [parts._replace(netloc=f"{host}:{port}").geturl() for host in hosts]


def _read(address: str) -> str:
    with urlopen(address, timeout=_TIMEOUT) as response:
        content: bytes = response.read(_MAX_BYTES)
    return content.decode()


def _samples(page: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(page):
        yield from family.samples
