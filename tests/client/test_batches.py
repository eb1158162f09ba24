"""Many instances: any number, split under the limits, by one version, in order."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_client import Client, InvalidInputError, MlpserveError, Prediction, _batches, _channel
from mlpserve_client.testing import ModelServer, serve
from mlpserve_model import Store
from tests.support.client import Connect, Expected, Pixels, StartServer


@pytest.fixture
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batches, "_REQUEST_BYTES", 3 * 784)


def test_rows_come_back_in_order(client: Client, pixels: Pixels, expected: Expected) -> None:
    answers = client.predict_batch(pixels)

    np.testing.assert_allclose(answers.probabilities, expected(pixels), atol=1e-6)
    np.testing.assert_array_equal(answers.labels, expected(pixels).argmax(axis=1))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 6, 7, 20])
@pytest.mark.usefixtures("small_requests")
def test_a_split_batch_is_answered_as_if_it_were_whole(
    client: Client, pixels: Pixels, expected: Expected, rows: int
) -> None:
    answers = client.predict_batch(pixels[:rows])

    np.testing.assert_allclose(answers.probabilities, expected(pixels[:rows]), atol=1e-6)


@pytest.mark.parametrize(
    "form", [lambda x: x / 255, lambda x: x.tolist(), lambda x: list(x / 255), np.asfortranarray]
)
@pytest.mark.usefixtures("small_requests")
def test_every_form_of_a_batch_gets_the_same_answers(
    client: Client, pixels: Pixels, expected: Expected, form: Callable[[Pixels], Any]
) -> None:
    answers = client.predict_batch(form(pixels))

    np.testing.assert_allclose(answers.probabilities, expected(pixels), atol=1e-6)


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 28, 28), dtype=np.uint8)])
def test_no_rows_get_no_answers_from_the_served_version(client: Client, nothing: Any) -> None:
    answers = client.predict_batch(nothing)

    assert len(answers) == 0
    assert answers.probabilities.shape == (0, 10)
    assert answers.model.version == 1


@pytest.mark.usefixtures("small_requests")
def test_a_batch_stays_with_the_version_that_answered_first(connect: Connect) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (300, 784), dtype=np.uint8)
    spanned = 0
    with serve() as server, publishing(server):
        client, store = connect(server.target), Store(server.store, "mnist")
        while spanned < 3:
            answers = client.predict_batch(rows)
            spanned += client.model().version != answers.model.version

            model = store.load(answers.model.version)
            recomputed = model.predict(rows.astype(np.float32) / np.float32(255))
            np.testing.assert_allclose(answers.probabilities, recomputed, atol=1e-6)


@contextmanager
def publishing(server: ModelServer) -> Iterator[None]:
    """Publish one version after the other."""
    enough = threading.Event()

    def publish() -> None:
        while not enough.wait(0.03):
            server.publish()

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_the_servers_limit_is_learned_from_its_refusal(
    connect: Connect,
    start: StartServer,
    tmp_path: Path,
    pixels: Pixels,
) -> None:
    server = start(max_batch=3)
    ModelServer(server.address, tmp_path / "store", (28, 28), "0123456789").publish()
    client = connect(server.address)
    client.wait_until_ready()

    answers = client.predict_batch(pixels)

    assert len(answers) == 20
    singly = [client.predict(image).label for image in pixels]
    assert answers.labels.tolist() == singly
    assert len(list(client.predict_stream(pixels))) == 20


@pytest.mark.usefixtures("small_requests")
def test_one_bad_row_fails_the_whole_batch(client: Client) -> None:
    rows = np.zeros((20, 784))
    rows[17, 3] = 2

    with pytest.raises(InvalidInputError, match="reach from 0 to 2"):
        client.predict_batch(rows)


def test_a_stream_is_answered_in_order(client: Client, pixels: Pixels, expected: Expected) -> None:
    answers = list(client.predict_stream((image for image in pixels), batch_size=3))

    assert [answer.label for answer in answers] == expected(pixels).argmax(axis=1).tolist()


def test_a_stream_may_mix_forms(client: Client, pixels: Pixels, expected: Expected) -> None:
    mixed = [pixels[0], pixels[1] / 255, pixels[2].ravel(), pixels[3].tolist(), pixels[4]]

    labels = [answer.label for answer in client.predict_stream(mixed)]

    assert labels == expected(pixels[:5]).argmax(axis=1).tolist()


def test_an_endless_stream_is_read_only_a_few_batches_ahead(client: Client, pixels: Pixels) -> None:
    read = 0

    def endless() -> Iterator[Pixels]:
        nonlocal read
        while True:
            read += 1
            yield pixels[0]

    stream = client.predict_stream(endless(), batch_size=10)
    for _ in range(25):
        next(stream)

    assert 25 <= read <= 25 + 10 * (_batches._IN_FLIGHT + 2)
    stream.close()


def test_a_stream_gives_what_came_before_a_bad_row(client: Client, pixels: Pixels) -> None:
    def rows() -> Iterator[Any]:
        yield from pixels[:12]
        yield np.full((28, 28), 7.0)

    answers: list[Prediction] = []
    with pytest.raises(InvalidInputError):
        answers.extend(client.predict_stream(rows(), batch_size=2))

    assert len(answers) >= 4


def test_an_empty_stream_has_no_answers(client: Client) -> None:
    assert list(client.predict_stream([])) == []


def test_an_error_of_the_source_reaches_the_caller(client: Client, pixels: Pixels) -> None:
    def broken() -> Iterator[Pixels]:
        yield pixels[0]
        raise OSError("camera unplugged")

    with pytest.raises(OSError, match="camera unplugged"):
        list(client.predict_stream(broken()))


def test_a_batch_size_below_one_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInputError):
        list(client.predict_stream([], batch_size=0))


def test_threads_share_a_client(server: ModelServer, pixels: Pixels, expected: Expected) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            for _ in range(20):
                answers = client.predict_batch(pixels[number:])
                if answers.labels.tolist() != labels[number:]:
                    wrong.append(answers)
        except MlpserveError as error:
            wrong.append(error)

    labels = expected(pixels).argmax(axis=1).tolist()
    with Client(server.target) as client:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert wrong == []


MANY = tuple(f"class {number}" for number in range(3000))


@pytest.fixture(scope="module")
def many_classes() -> Iterator[str]:
    """A server whose answers are 750 times as large as its requests."""
    with serve(input_shape=(16,), class_names=MANY) as server:
        yield server.target


@pytest.fixture(params=[16, pytest.param(1, marks=pytest.mark.slow)])
def rows_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The rows of the largest request, with every limit as much lower as it is."""
    part = int(request.param)
    monkeypatch.setattr(_channel, "_MESSAGE_LIMIT", _channel._MESSAGE_LIMIT // part)
    monkeypatch.setattr(_batches, "_MAX_STREAM_BYTES", _batches._MAX_STREAM_BYTES // part)
    return 8192 // part


@pytest.mark.parametrize("assumed", [256, 1])
def test_answers_larger_than_requests_are_asked_for_in_parts(
    connect: Connect,
    many_classes: str,
    monkeypatch: pytest.MonkeyPatch,
    rows_at_once: int,
    assumed: int,
) -> None:
    # 1: the first answer would be 98 MB, beyond gRPC's limit, and is split for it.
    monkeypatch.setattr(_batches, "_UNKNOWN_CLASSES", assumed)
    client = connect(many_classes)
    rows = np.zeros((rows_at_once, 16), dtype=np.uint8)
    rows[-100] = 255

    answers = client.predict_batch(rows)

    assert answers.probabilities.shape == (rows_at_once, 3000)
    changed = (answers.probabilities != answers.probabilities[0]).any(axis=1)
    assert np.flatnonzero(changed).tolist() == [rows_at_once - 100]


def test_a_streams_requests_are_bounded_whatever_batch_size_is_asked_for(
    connect: Connect, many_classes: str, rows_at_once: int
) -> None:
    rows = np.zeros((rows_at_once, 16), dtype=np.uint8)
    answers = connect(many_classes).predict_stream(iter(rows), batch_size=rows_at_once)

    assert sum(1 for _ in answers) == rows_at_once
