"""Signals are heard whichever thread takes them."""

import subprocess
import sys

# In a process of its own: handlers stay.
SCRIPT = """
import signal, threading
from mlpserve_model.signals import heard

signals = heard([signal.SIGTERM, signal.SIGINT])
signals.settimeout(10)
waits = threading.Event()
other = threading.Thread(target=waits.wait)
other.start()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
    signal.pthread_kill(other.ident, number)
    print(signal.Signals(signals.recv(1)[0]).name)
waits.set()
"""


def test_a_signal_that_another_thread_takes_is_heard() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["SIGINT", "SIGTERM", "SIGINT"]
