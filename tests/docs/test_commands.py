"""docs/reference/commands.md lists the commands that there are, and no flag that there is not."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlpserve_cli.main import main as umbrella
from mlpserve_client._cli.main import main as client
from mlpserve_model.cli import main as models
from mlpserve_server.cli import main as server
from mlpserve_trainer.cli import main as trainer
from mlpserve_web.cli import main as web

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "commands.md").read_text()
PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "mlpserve-trainer": trainer,
    "mlpserve-server": server,
    "mlpserve-models": models,
    "mlpserve-client": client,
    "mlpserve-web": web,
}


def section(program: str) -> str:
    return TEXT.split(f"\n## {program}\n")[1].split("\n## ")[0]


@pytest.fixture
def help_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a program prints for --help."""

    def run(program: str, *command: str) -> str:
        with pytest.raises(SystemExit):
            PROGRAMS[program]([*command, "--help"])
        return capsys.readouterr().out

    return run


def commands(text: str) -> set[str]:
    """The commands that a program's help lists."""
    return set(re.findall(r"^    ([a-z]\w*)(?: |$)", text.partition("COMMAND\n")[2], re.MULTILINE))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_document_lists_every_command(program: str, help_of: Callable[..., str]) -> None:
    listed = re.findall(r"^\| `(\w+)` \|", section(program), re.MULTILINE)
    assert set(listed) == commands(help_of(program))
    assert listed or program in ("mlpserve-server", "mlpserve-web")


def test_the_document_lists_every_command_of_mlpserve(capsys: pytest.CaptureFixture[str]) -> None:
    umbrella(["--help"])
    exist = set(re.findall(r"^  ([a-z]+)  ", capsys.readouterr().out, re.MULTILINE))
    cells = re.findall(r"^\| (`.+?`) \|", section("mlpserve"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", "".join(cells))) == exist


def every_command(
    program: str, help_of: Callable[..., str], *command: str
) -> Iterator[tuple[str, ...]]:
    """Give the words of each command, also of those that have commands themselves."""
    yield command
    for name in commands(help_of(program, *command)):
        yield from every_command(program, help_of, *command, name)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_of_the_document_exists(program: str, help_of: Callable[..., str]) -> None:
    helps = [help_of(program, *command) for command in every_command(program, help_of)]
    exist = set(re.findall(r"--[a-z-]+", "".join(helps)))
    assert set(re.findall(r"`(--[a-z-]+)", section(program))) <= exist
