"""Tests of docs/reliability.md, run where what they are to hold is broken: each must notice."""

from typing import NamedTuple

import pytest

from tests.support.twins import assert_fails

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

RELOADS = (
    "faults/test_reloads.py"
    "::test_threads_that_force_loads_at_once_block_neither_each_other_nor_the_swap"
)
BAD_REQUESTS = (
    "server/dataplane/test_bad_requests.py::test_no_request_whatever_is_answered_with_a_fault"
)
BAD_INFER_REQUESTS = (
    "server/dataplane/test_open_inference_refusals.py"
    "::test_no_request_whatever_is_answered_with_a_fault"
)
LATE_WORK = (
    "faults/test_late_work.py"
    "::test_hardly_any_row_is_computed_after_its_call_is_over_and_no_call_stays"
)

UNCHECKED_VALUES = """
from mlpserve_server.dataplane import tensors

tensors._check_scaled = lambda *_: None
"""
UNCHECKED_SIZES = """
from mlpserve_server.dataplane import tensors

tensors._check_size = lambda *_: None
"""
UNDROPPED = """
from mlpserve_server.transport.call_runner import CallRunner

CallRunner._drop = lambda self, call: False
"""


class Twin(NamedTuple):
    """What breaks a part, the test that must notice, and what it then says."""

    code: str
    test: str
    failure: str
    seconds: float = 300


TWINS = {
    "7 loads without their lock": Twin(
        """
from contextlib import nullcontext
from mlpserve_server.lifecycle.loader import Loader

init = Loader.__init__

def without_lock(self, *args, **kwargs):
    init(self, *args, **kwargs)
    self._lock = nullcontext()

Loader.__init__ = without_lock
""",
        RELOADS,
        "two loads at once",
    ),
    # Callers hold the lock of the standby while they load; the poll takes the two the other way.
    "7 locks in the other order": Twin(
        """
import threading, time
from mlpserve_server.lifecycle.loader import Standby
from mlpserve_server.lifecycle.manager import ModelManager

init, get = Standby.__init__, ModelManager.get

def reentrant(self, size):
    init(self, size)
    self._lock = threading.RLock()

def holding(self, *args, **kwargs):
    with self.loader.standby._lock:
        time.sleep(0.01)  # in which the poll takes the other lock
        return get(self, *args, **kwargs)

Standby.__init__, ModelManager.get = reentrant, holding
""",
        RELOADS,
        r"in try_load\n.*\n.*in load\n.*\n.*in get\n    with self._lock:",
        seconds=20,
    ),
    "8 values not checked": Twin(UNCHECKED_VALUES, BAD_REQUESTS, "answered out of range"),
    "8 values not checked, Open Inference": Twin(
        UNCHECKED_VALUES, BAD_INFER_REQUESTS, "answered out of range"
    ),
    "8 sizes not checked": Twin(UNCHECKED_SIZES, BAD_REQUESTS, "StatusCode.INTERNAL"),
    "8 sizes not checked, Open Inference": Twin(
        UNCHECKED_SIZES, BAD_INFER_REQUESTS, "StatusCode.INTERNAL"
    ),
    "12 deadlines ignored, direct": Twin(
        UNDROPPED, f"{LATE_WORK}[direct-deadlines-200]", r"assert \d+ < \(0\.1 \* \d+\)"
    ),
    "12 cancels ignored, direct": Twin(
        UNDROPPED, f"{LATE_WORK}[direct-cancels-200]", r"assert \d+ < \(0\.2 \* \d+\)"
    ),
    "12 deadlines ignored, standard": Twin(
        """
from contextlib import contextmanager
from mlpserve_server.transport.call_pool import CallPool, Turn

@contextmanager
def computes(self, context, turns, model):
    with self._delaying_stop(), turns.turn(model):
        yield Turn(lambda: True, may_load=False)

CallPool.computes = computes
""",
        f"{LATE_WORK}[standard-deadlines-200]",
        r"assert \d+ < \(0\.1 \* \d+\)",
    ),
    "12 slots of cancelled calls kept": Twin(
        """
from mlpserve_server.errors import Abandoned
from mlpserve_server.transport.open_calls import OpenCalls

finish = OpenCalls.finish

def leaking(self, call, answer):
    self.count += isinstance(answer, Abandoned)
    finish(self, call, answer)

OpenCalls.finish = leaking
""",
        f"{LATE_WORK}[direct-cancels-200]",
        r"transport\.waiting == 0(?s:.*)not within 20\.0 s",
    ),
    "14 new files not validated": Twin(
        """
import grpc
from mlpserve_server.security import certificates

def unchecked(files):
    pair = files.key.read_bytes(), files.cert.read_bytes()
    configuration = grpc.ssl_server_certificate_configuration([pair])
    return certificates._Checked(configuration, {})

certificates._read = unchecked
""",
        "server/security/test_tls.py::test_half_of_a_new_pair_keeps_the_old_one_and_is_logged_once",
        r"assert \['credentials in force'\] == \['new credent",
    ),
    "14 keys of any kind accepted": Twin(
        """
from mlpserve_server.security import certificates

certificates._KEY_IDENTIFIERS = (b"",)
""",
        "server/security/test_tls.py::test_a_key_that_grpc_clients_refuse_is_not_put_in_force",
        "AssertionError: put in force",
    ),
    "15 tokens not compared in constant time": Twin(
        """
import operator
from mlpserve_server.security import tokens

tokens.compare_digest = operator.eq
""",
        "server/security/test_token_file.py"
        "::test_every_guess_is_compared_whole_with_every_token_in_constant_time",
        r"assert <built-in function eq> is",
    ),
    "15 unknown methods answered otherwise": Twin(
        """
from mlpserve_server.transport.interceptors import TokenAuthInterceptor

intercept = TokenAuthInterceptor.intercept_service

def telling(self, continuation, details):
    return intercept(self, continuation, details) if continuation(details) else None

TokenAuthInterceptor.intercept_service = telling
""",
        "server/security/test_tokens.py"
        "::test_all_failures_get_one_answer_whatever_the_method_and_the_mistake",
        r"assert 2 == 1\n",
    ),
    "15 unknown models answered otherwise": Twin(
        """
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.security.scope import ALL

get = Models.get

def telling(self, name=None, field="model.name", scope=ALL):
    return get(self, name, field, scope if name is None or name in self.managers else ALL)

Models.get = telling
""",
        "server/security/test_scopes.py"
        "::test_every_method_refuses_a_model_that_the_token_does_not_allow",
        "NOT_FOUND",
    ),
    "15 the token in the access log": Twin(
        """
from mlpserve_server.observability import recorder

record = recorder._record

def telling(call, code, seconds):
    return record(call, code, seconds)._replace(peer=call.header("authorization"))

recorder._record = telling
""",
        "server/security/test_secrecy.py"
        "::test_nothing_that_callers_send_and_no_token_gets_into_log_and_metrics",
        "AssertionError: zq7mark",
    ),
    "16 fields not cut": Twin(
        """
from mlpserve_model.process import log

log._cut = str
""",
        "model/process/test_log.py::test_long_fields_and_messages_are_cut_at_256_characters",
        "AssertionError",
    ),
    "16 request ids not checked": Twin(
        """
import re
from mlpserve_server.observability import observer

observer._REQUEST_ID = re.compile(".+", re.DOTALL)
""",
        "server/observability/test_access_log.py"
        "::test_attempts_to_forge_a_line_leave_nothing_of_theirs",
        "assert 'SECRET' not in",
    ),
    "16 the path of a request as a label": Twin(
        """
from mlpserve_server.observability import recorder

class Paths(dict):
    def get(self, path, other):
        return super().get(path, path)

recorder.METHODS = Paths(recorder.METHODS)
""",
        "server/observability/test_metrics.py::test_thousands_of_strange_labels_add_no_series",
        r"Extra items in the left set:\n.*'method', '/",
    ),
}


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_a_test_notices_that_a_part_is_broken(twin: Twin) -> None:
    assert_fails(*twin)
