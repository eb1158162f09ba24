"""A signal arrives as a byte, whichever thread takes it."""

import subprocess
import sys

# In a process of its own, which other signals may be sent to.
SCRIPT = """
import signal, threading
from mlpserve_model.process.signals import signals_as_bytes

waits = threading.Event()
other = threading.Thread(target=waits.wait)
other.start()
with signals_as_bytes([signal.SIGTERM, signal.SIGINT]) as signals:
    signals.settimeout(10)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        signal.pthread_kill(other.ident, number)
        print(signal.Signals(signals.recv(1)[0]).name)
waits.set()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("as before")
"""


def test_a_signal_that_another_thread_takes_is_heard_for_as_long_as_wanted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["SIGINT", "SIGTERM", "SIGINT", "as before"]
