"""The commands below `mlpserve`, and which program runs each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

__all__ = ["COMMANDS", "Command"]

_CLIENT = "mlpserve_client._cli.main"
_MODELS = "mlpserve_model.cli"
_SERVER = "mlpserve_server.cli"
_TRAINER = "mlpserve_trainer.cli"
_WEB = "mlpserve_web.cli"


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name, the module whose `main` runs it, and the words put before its arguments.

    `extra` is the optional dependency group that the module needs; empty if it needs none.
    """

    name: str
    help: str
    module: str
    words: tuple[str, ...] = ()
    extra: str = ""

    def run(self, arguments: Sequence[str]) -> int:
        """Run the command and return its exit code.

        Raises:
            ModuleNotFoundError: a package of the extra is not installed.

        """
        program: Callable[[Sequence[str]], int] = import_module(self.module).main
        return program([*self.words, *arguments])


def _trainer(name: str, text: str) -> Command:
    return Command(name, text, _TRAINER, (name,), "trainer")


def _client(name: str, text: str) -> Command:
    return Command(name, text, _CLIENT, (name,))


COMMANDS = {
    command.name: command
    for command in (
        _trainer("train", "train a network, judge it, publish it"),
        _trainer("schedule", "train by a timetable, until stopped"),
        _trainer("judge", "promote, retire or roll back a version on evidence"),
        _trainer("feedback", "review what callers corrected"),
        _trainer("reproduce", "train a published version again and compare"),
        _trainer("sweep", "compare recipes on validation data"),
        _trainer("datasets", "list the data sets"),
        _trainer("recipes", "list the recipes"),
        Command("serve", "serve the accepted version over gRPC", _SERVER, extra="server"),
        Command("web", "serve the same over HTTP and JSON", _WEB, extra="web"),
        _client("predict", "classify images and arrays"),
        _client("explain", "show which values of an input its answer came from"),
        _client("report", "report what the truth about an answer was"),
        _client("model", "show the version that a server serves"),
        _client("health", "check whether a server is ready"),
        _client("bench", "measure a server's latency and throughput"),
        Command("models", "list, promote, roll back and prune published versions", _MODELS),
    )
}
