"""Code as users write it; test_types.py has it checked. Types that got lost would be errors."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt
from PIL import Image

from mlpserve_client import (
    AsyncClient,
    BatchPrediction,
    ClassProbability,
    Client,
    Explanation,
    InvalidInputError,
    MlpserveError,
    ModelVersion,
    OverloadedError,
    Prediction,
    Tls,
    ValueAttribution,
)
from mlpserve_client.testing import ModelServer, serve


def blocking(image: npt.NDArray[np.uint8], images: npt.NDArray[np.float64]) -> None:
    with Client("localhost:50051", timeout=2.5) as client:
        answer = client.predict(image)
        assert_type(answer, Prediction)
        assert_type(answer.label, int)
        assert_type(answer.probability, float)
        assert_type(answer.probabilities, npt.NDArray[np.float32])
        assert_type(answer.top(3), list[ClassProbability])

        client.predict([[0, 1], [2, 3]], version=3)
        client.predict([[0.5]], alias="champion", timeout=1)
        client.predict(Path("seven.png"))
        client.predict("seven.png")
        client.predict(Image.new("L", (28, 28)))

        many = client.predict_batch(images)
        assert_type(many, BatchPrediction)
        assert_type(many[0], Prediction)
        assert_type(many[1:3], BatchPrediction)
        assert_type(many.labels, npt.NDArray[np.int32])
        assert_type(many.names, list[str])
        client.predict_batch([image, image])
        client.predict_batch([Path("one.png"), Path("two.png")])

        assert_type(client.predict_stream(iter(images)), Generator[Prediction, None, None])
        why = client.explain("seven.png", label=7, baseline=image)
        assert_type(why, Explanation)
        assert_type(why.attributions, npt.NDArray[np.float32])
        assert_type(why.top(3), list[ValueAttribution])
        assert_type(why.top(3)[0].position, tuple[int, ...])

        assert_type(client.model(), ModelVersion)
        assert_type(client.models(), list[ModelVersion])
        assert_type(client.model().input_shape, tuple[int, ...])
        assert_type(client.health(), bool)
        client.wait_until_ready(30)


async def awaited(image: npt.NDArray[np.uint8]) -> None:
    async with AsyncClient(["a:1", "b:2"], tls=Tls(server_name="models"), token="t") as client:
        assert_type(await client.predict(image), Prediction)
        assert_type(await client.predict_batch([image]), BatchPrediction)
        assert_type(await client.explain(image), Explanation)
        assert_type(client.predict_stream([image]), AsyncGenerator[Prediction, None])
        async for answer in client.predict_stream([image]):
            assert_type(answer, Prediction)


def handling(client: Client) -> str | float | None:
    try:
        client.predict([0])
    except InvalidInputError as error:
        assert_type(error.field, str)
    except OverloadedError as error:
        assert_type(error.retry_after, float | None)
        return error.retry_after
    except MlpserveError as error:
        return str(error)
    return None


def testing() -> None:
    with serve() as server:
        assert_type(server, ModelServer)
        assert_type(server.target, str)
