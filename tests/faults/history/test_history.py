"""Three replicas on one store, four clients and a publisher, and a fault every few seconds.

Whatever happens: every answer is that of the version it names, versions never go back on a
connection, nothing rejected or damaged answers, calls fail only while no replica is reachable, and
the last good version answers two polls after the last fault.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from mlpserve_client import Tls
from tests.faults.history.broken_server import broken_command
from tests.faults.history.conftest import MakeSystem
from tests.faults.history.nemesis import plan
from tests.faults.history.replica_faults import REPLICA_FAULTS
from tests.faults.history.replicas import server_command
from tests.faults.history.run import findings, run
from tests.faults.history.store_faults import STORE_FAULTS
from tests.faults.history.summary import summary
from tests.faults.history.system import Kind, System

_MAX_SHOWN = 20
KINDS = [*REPLICA_FAULTS, *STORE_FAULTS]
_NOT_HERE = {
    "clock jumps": "clock jumps, which need libfaketime: apt-get install faketime",
    "volume full": "volume full, which needs root, to mount a small tmpfs",
}
QUICK = pytest.param(1, 40.0, 2.0, marks=pytest.mark.faults, id="quick")
FULL = [
    pytest.param(seed, 600.0, 2.8, marks=pytest.mark.soak, id=f"seed {seed}") for seed in (1, 2, 3)
]


def check(
    system: System, seed: int, seconds: float, every: float, tls: Tls, of: Sequence[Kind] = KINDS
) -> list[str]:
    """Run a plan with all of these kinds that can be had here; return what was found."""
    kinds = [kind for kind in of if kind.targets(system)]
    steps = plan(seed, seconds, every, [kind.name for kind in kinds])
    history = run(system, steps, kinds, tls)
    print(f"\n{summary(history, len(system.publisher.refused), left_out(system, of))}")
    return findings(system, history)


def left_out(system: System, kinds: Sequence[Kind]) -> list[str]:
    """Return why some of these kinds cannot be had here, though they belong to this store."""
    missing = {kind.name for kind in kinds if not kind.targets(system)}
    if system.bucket_ways:
        missing -= {"volume full"}  # there is none
    return [why for kind, why in _NOT_HERE.items() if kind in missing]


@pytest.mark.parametrize(("seed", "seconds", "every"), [QUICK, *FULL])
@pytest.mark.parametrize("store", ["folder", "bucket"])
def test_no_fault_makes_a_wrong_answer_or_fails_a_call_that_a_replica_could_answer(
    store: str, seed: int, seconds: float, every: float, request: pytest.FixtureRequest,
    tls: Tls, tmp_path: Path,
) -> None:  # fmt: skip
    make: MakeSystem = request.getfixturevalue(f"on_{store}")
    system = make(server_command())
    found = check(system, seed, seconds, every, tls)
    assert not found, "\n".join(
        [f"{len(found)} findings, logs in {tmp_path}:", *found[:_MAX_SHOWN]]
    )


@pytest.mark.faults
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("unverified", "not what the weights of version"),
        ("backwards", " after "),
        ("forgetful", "after the last fault, expected"),
    ],
)
def test_the_check_notices_a_server_without_one_of_its_guarantees(
    how: str, sentence: str, on_folder: MakeSystem, tls: Tls
) -> None:
    kinds = [kind for kind in STORE_FAULTS if "damaged" in kind.name]
    found = check(on_folder(broken_command(how)), 1, 15.0, 1.5, tls, kinds)
    assert any(sentence in each for each in found), found
