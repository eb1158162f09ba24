"""A training that is interrupted, from the command line."""

import os
import re
import signal
import subprocess
import sys

import pytest

from mlpserve_model import CHAMPION, Store
from mlpserve_trainer.cli import main
from tests.support.patching import patch_method_of
from tests.trainer.conftest import FAST


@pytest.mark.parametrize(
    ("number", "before"),
    [
        (signal.SIGINT, ""),
        (signal.SIGTERM, ""),
        # As a shell's script starts what it does not wait for.
        (signal.SIGTERM, "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "),
    ],
)
def test_a_signal_to_stop_ends_with_130_and_publishes_nothing(
    store: Store, number: int, before: str
) -> None:
    program = f"{before}import sys; from mlpserve_trainer.cli import main; sys.exit(main())"
    # Wide enough to be trained by two processes.
    arguments = ["train", "--dataset", "digits", "--epochs", "1000000", "--hidden", "1024"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("epoch=2 " in line for line in lines)
        os.killpg(process.pid, number)  # as a terminal does
        rest = process.stderr.read()  # to the end, so no other process is left
    assert process.returncode == 130
    assert re.search(
        "mlpserve-trainer: interrupted: nothing was published; "
        r"the same command with --resume continues after epoch \d+\n$",
        rest,
    )
    assert "Traceback" not in rest
    assert store.versions() == []


def test_ctrl_c_during_publication_waits_for_its_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = Store.publish

    def interrupted(self: Store, *arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return publish(self, *arguments)  # type: ignore[arg-type]

    patch_method_of(
        monkeypatch, Store, "publish", lambda opened: str(opened) == str(store), interrupted
    )
    assert main(["train", *FAST]) == 0
    assert store.aliases() == {CHAMPION: 1}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_ends_a_training_as_ctrl_c_does(store: Store) -> None:
    program = "import sys; from mlpserve_trainer.cli import main; sys.exit(main())"
    # Wide enough to be trained by two processes.
    arguments = ["train", "--dataset", "digits", "--epochs", "1000000", "--hidden", "1024"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stderr is not None
        assert any("epoch=2 " in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "the same command with --resume continues after epoch" in rest
    assert "Traceback" not in rest


def test_a_reader_that_has_seen_enough_ends_a_training_cleanly(store: Store) -> None:
    program = "import sys; from mlpserve_trainer.cli import main; sys.exit(main())"
    arguments = ["train", *FAST, "--log-level", "error"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as `head` does
        err = process.stderr.read()
    assert (process.returncode, err) == (0, "")
    assert store.aliases() == {CHAMPION: 1}
