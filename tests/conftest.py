"""What every test may rely on."""

import signal


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start, also where CI runs in the background.

    A shell starts background jobs with SIGINT ignored, and what ignores it hands that on.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
