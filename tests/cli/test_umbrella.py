"""`mlpserve`: one command, with the programs as its subcommands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlpserve_cli.commands import COMMANDS
from mlpserve_cli.main import main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])

    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0

    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "}
    assert listed == {*COMMANDS, "doctor", "completion"}


def test_a_command_that_is_not_there_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "mlpserve: there is no command 'trian': did you mean train?\n"


@pytest.mark.usefixtures("no_figures")
def test_the_loop_through_the_one_command(tmp_path: Path) -> None:
    def mlpserve(*arguments: str) -> str:
        run = subprocess.run(
            [sys.executable, "-P", "-m", "mlpserve_cli", *arguments],
            cwd=tmp_path,
            env=os.environ | {"MLPSERVE_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    mlpserve("train", "--dataset", "digits", "--epochs", "2", "--min-accuracy", "0.2")
    assert "champion" in mlpserve("models", "list")
    assert "champion 1 is whole" in mlpserve("doctor", "--target", "127.0.0.1:1")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_names_commands_and_flags(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0

    script = capsys.readouterr().out
    assert "min-accuracy" in script
    assert "grace-seconds" in script
    assert "rollback" in script
    assert "digits" in script
    assert "accurate" in script


def test_the_bash_script_is_valid(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["completion", "bash"])
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)

    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("program", [["mlpserve_cli", "train"], ["mlpserve_trainer", "train"]])
def test_a_trainer_that_is_not_installed_is_one_line(program: list[str], tmp_path: Path) -> None:
    (tmp_path / "threadpoolctl.py").write_text("raise ModuleNotFoundError(name='threadpoolctl')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", *program]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (line,) = run.stderr.splitlines()
    assert (run.returncode, run.stdout) == (1, "")
    assert "threadpoolctl" in line
    assert "pip install '.[trainer]'" in line


@pytest.mark.parametrize(
    ("command", "help_command"),
    [
        ("train --epoch 3", "mlpserve-trainer train --help"),
        ("models list --sotre x", "mlpserve-models list --help"),
        ("predict --dmo", "mlpserve-client predict --help"),
        ("serve --lisen x", "mlpserve-server --help"),
    ],
)
def test_a_wrong_flag_sends_to_the_help_that_lists_it(
    command: str, help_command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(command.split())
    said = capsys.readouterr().err
    assert "did you mean --" in said
    assert f"(see {help_command})" in said
