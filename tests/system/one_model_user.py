"""What a user does with one model, by calls that every release of the client has; prints JSON.

python one_model_user.py HOST:PORT
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from mlpserve_client import Client, MlpserveError

ROWS = np.linspace(0, 1, 5 * 64, dtype=np.float32).reshape(5, 8, 8)


def main() -> None:
    """Call everything and print what came of it."""
    with Client(sys.argv[1], timeout=20) as client:
        client.wait_until_ready(30)
        one = client.predict(ROWS[0])
        many = client.predict_batch(ROWS)
        told: dict[str, Any] = {
            "model": [one.model.name, one.model.version, one.model.digest],
            "label": one.label,
            "probabilities": [f"{p:.5f}" for p in one.probabilities],
            "labels": [int(label) for label in many.labels],
            "first": client.predict(ROWS[0], version=1).model.version,
            "champion": client.predict(ROWS[0], alias="champion").model.version,
            "described": [client.model().version, client.model().class_names[0]],
            "health": [client.health(), client.health(live=True)],
            "refused": [
                refusal(lambda: client.predict(np.zeros((3, 3), np.float32))),
                refusal(lambda: client.predict(ROWS[0], version=99)),
                refusal(lambda: client.predict(ROWS[0], alias="nobody")),
                refusal(lambda: client.predict_batch(np.full((2, 8, 8), np.nan, np.float32))),
            ],
        }
        print(json.dumps(told))


def refusal(call: Callable[[], object]) -> str:
    """Return the name of the error that a call ends with."""
    try:
        call()
    except MlpserveError as error:
        return type(error).__name__
    return "none"


if __name__ == "__main__":
    main()
