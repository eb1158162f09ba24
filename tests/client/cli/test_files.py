"""Files as the command reads them: arrays, pictures, pipes, and what is wrong with some."""

import csv
import gzip
import io
import json
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from mlpserve_client._cli.main import main
from mlpserve_client.testing import serve
from tests.client.cli.conftest import COMMAND, labels_in, run
from tests.support.client import Expected, Pixels

pytestmark = pytest.mark.usefixtures("target")


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises pixels and has none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + zlib.crc32(chunk).to_bytes(4)


LARGE_PNG = png_header(100_000, 100_000)  # more than Pillow takes for honest


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def idx(pixels: npt.NDArray[np.uint8]) -> bytes:
    shape = np.array(pixels.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, pixels.ndim]) + shape + pixels.tobytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.npy", npy),
        ("x.npy.gz", lambda x: gzip.compress(npy(x))),
        ("flat.npy", lambda x: npy(x.reshape(len(x), 784))),
        ("idx3-ubyte", idx),
        ("idx3-ubyte.gz", lambda x: gzip.compress(idx(x))),
    ],
)
def test_every_kind_of_file_is_classified(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pixels: Pixels,
    expected: Expected,
    name: str,
    content: Callable[[Any], bytes],
) -> None:
    (tmp_path / name).write_bytes(content(pixels))

    assert main(["predict", "--json", str(tmp_path / name)]) == 0

    assert labels_in(capsys.readouterr().out) == expected(pixels).argmax(axis=1).tolist()


@pytest.mark.parametrize("names", [("X", "y"), ("whatever",)])
def test_an_npz_file_gives_x_or_its_only_array(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pixels: Pixels, names: tuple[str, ...]
) -> None:
    arrays: dict[str, Any] = dict.fromkeys(names, pixels)
    np.savez(tmp_path / "x.npz", **arrays)

    assert main(["predict", "--json", str(tmp_path / "x.npz")]) == 0
    assert len(labels_in(capsys.readouterr().out)) == 20


@pytest.mark.parametrize(
    ("index", "rows"), [("7", [7]), ("18:", [18, 19]), (":2", [0, 1]), ("3:5", [3, 4])]
)
def test_rows_of_an_array_can_be_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pixels: Pixels, index: str, rows: list[int]
) -> None:
    np.save(tmp_path / "x.npy", pixels)

    assert main(["predict", "--json", "--index", index, str(tmp_path / "x.npy")]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["row"] for line in lines] == rows


@pytest.mark.parametrize("index", ["20", "-1", "5:5", "x", "7:30"])
def test_rows_that_are_not_there_are_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pixels: Pixels, index: str
) -> None:
    np.save(tmp_path / "x.npy", pixels)

    assert main(["predict", f"--index={index}", str(tmp_path / "x.npy")]) == 2
    assert "--index" in capsys.readouterr().err


def test_a_file_with_one_instance_is_one_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pixels: Pixels, expected: Expected
) -> None:
    np.save(tmp_path / "x.npy", pixels[0])

    assert main(["predict", "--json", str(tmp_path / "x.npy")]) == 0
    assert labels_in(capsys.readouterr().out) == [expected(pixels[:1]).argmax()]


def test_csv_has_class_names_as_they_are_whatever_they_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("a,b", 'say "c"', "two\nlines", "carriage\rreturn", "=1+1", " spaces ")
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    with serve(input_shape=(4,), class_names=names) as server:
        command = ["predict", str(tmp_path / "x.npy"), "--csv", "--target", server.target]
        assert main(command) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert header[6:] == [f"p_{name}" for name in names]
    assert [row[3] for row in rows] == [names[int(row[2])] for row in rows]


def test_a_pipe_becomes_csv_and_nothing_else(pixels: Pixels, expected: Expected) -> None:
    done = run("predict", "-", "--csv", stdin=npy(pixels))

    assert (done.returncode, done.stderr) == (0, b"")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [int(row["label"]) for row in rows] == expected(pixels).argmax(axis=1).tolist()
    probabilities = [[float(row[f"p_{name}"]) for name in range(10)] for row in rows]
    np.testing.assert_allclose(probabilities, expected(pixels), atol=1e-5)
    assert {row["version"] for row in rows} == {"1"}


def test_a_reader_that_has_had_enough_ends_the_command_quietly(pixels: Pixels) -> None:
    many = np.repeat(pixels, 500, axis=0)
    command = [*COMMAND, "predict", "-", "--csv"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(npy(many))
        process.stdin.close()
        process.stdout.readline()
        process.stdout.close()

        assert process.stderr.read() == b""
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x93NUMPY",
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        gzip.compress(b"hello", mtime=0)[:10] + b"\xff" * 20,
        b"\x00\x00\x08",
        b"\x00\x00\x08\x03\x00",
        LARGE_PNG,
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_damaged_file_is_one_line_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "damaged").write_bytes(content)

    assert main(["predict", str(tmp_path / "damaged")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "damaged" in line


def test_a_file_with_pickled_objects_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)

    assert main(["predict", str(tmp_path / "x.npy")]) == 1
    assert "pickle" in capsys.readouterr().err


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "missing.npy"]) == 1
    assert "missing.npy" in capsys.readouterr().err


@pytest.mark.parametrize("compress", [lambda data: data, gzip.compress])
def test_a_pipe_with_a_name_is_read_once(
    tmp_path: Path, pixels: Pixels, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "x").write_bytes(compress(npy(pixels)))
    line = f"{' '.join(COMMAND)} predict --json <(cat {tmp_path / 'x'})"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert len(labels_in(done.stdout.decode())) == 20


def test_one_bad_file_does_not_lose_the_other_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pixels: Pixels
) -> None:
    np.save(tmp_path / "good.npy", pixels)
    np.save(tmp_path / "short.npy", np.zeros(5))
    (tmp_path / "bad.png").write_text("hello")

    files = [str(tmp_path / name) for name in ("bad.png", "good.npy", "short.npy", "missing.npy")]
    assert main(["predict", "--json", *files]) == 1

    output = capsys.readouterr()
    assert len(labels_in(output.out)) == 20
    bad, short, missing = output.err.splitlines()
    assert "bad.png is not an image" in bad
    assert "5 numbers, the model takes 784" in short
    assert "No such file" in missing
    assert "0x" not in bad
    assert "Errno" not in missing


def test_a_photograph_with_a_shadow_is_answered_with_a_word_of_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    light = np.full((100, 100), 230, dtype=np.uint8)
    light[20:, 10:] = 90
    for name in ("a.png", "b.png"):
        PIL.Image.fromarray(light).save(tmp_path / name)

    assert main(["predict", "--json", str(tmp_path / "a.png"), str(tmp_path / "b.png")]) == 0

    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 2
    assert output.err.count("mlpserve-client: warning: ") == 2


# Without the time of its making, which would be in the name of the test.
GZIPPED = gzip.compress(b"1,2\n", mtime=0)


@pytest.mark.parametrize(
    "table", [b"a,b\n1,2\n", b"1.5;2,5\n", "größe\tfarbe\n1\t2\n".encode(), GZIPPED]
)
def test_a_table_of_text_is_refused_with_what_to_do(
    table: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_bytes(table)
    assert main(["predict", str(tmp_path / "rows.csv")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "rows.csv is a table of text: expected its columns in the order of the training" in line
