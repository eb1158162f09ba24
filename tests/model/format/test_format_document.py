"""docs/model-format.md says what the code does, and its example works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlpserve_model import Store
from mlpserve_model.format import manifest, manifest_reader
from mlpserve_model.format import version_files as stored
from mlpserve_model.format.records import ALIAS
from mlpserve_model.format.strict_json import MAX_DEPTH
from mlpserve_model.nn.activations import HIDDEN, OUTPUT

TEXT = (Path(__file__).parents[3] / "docs" / "model-format.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def flowers(tmp_path: Path) -> Store:
    """A store to which the document's example has published twice."""
    for _ in range(2):
        subprocess.run([sys.executable, "-W", "error", "-c", EXAMPLE], cwd=tmp_path, check=True)
    return Store(tmp_path / "models", "flowers")


def test_what_the_example_writes_is_loaded_and_verified(flowers: Store) -> None:
    assert flowers.versions() == [1, 2]
    assert flowers.verify(2).signature.class_names == ("iris", "rose", "tulip")
    probabilities = flowers.load(2).predict(np.ones((1, 4), np.float32))
    assert_allclose(probabilities.sum(), 1, rtol=1e-6)
    assert [event["version"] for event in flowers.history()] == [1, 2]
    assert not list(flowers.folder.rglob("*.tmp"))


def test_the_example_and_the_store_publish_side_by_side(flowers: Store) -> None:
    model = flowers.load(1)
    inputs = np.zeros((1, 4), np.float32)
    assert flowers.publish(model.manifest, model.manifest.gate, model.weights, inputs).version == 3


def test_every_field_of_the_manifest_is_in_the_table(flowers: Store) -> None:
    section = TEXT.partition("## manifest.json")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE))
    known = manifest_reader._KNOWN.union(*manifest_reader._ACTIVATIONS.values())
    assert {row.split(".")[0] for row in rows} == known


@pytest.mark.parametrize(
    "said",
    [
        f"formats {' and '.join(map(str, manifest.FORMATS))}, which",
        *[f"`{name}`" for name in (*manifest.INPUT_KINDS, "activations")],
        f"at most {manifest.MAX_BYTES:,} bytes",
        f"at most {MAX_DEPTH}\ndeep",
        f"2 to {manifest.MAX_LAYERS} integers",
        f"at most {manifest.MAX_PARAMETERS:,} weights and biases",
        f"from 1 to {manifest.MAX_GOLDEN_ROWS:,}; times the widest layer at most "
        f"{manifest.MAX_PARAMETERS:,}",
        f"by more than {stored.GOLDEN_TOLERANCE:.4f} from",
        f"`{manifest.NAME.pattern}`",
        f"`{ALIAS.pattern}`",
        f"`{manifest_reader._FILE_NAME.pattern}`",
        *[f"`{name}`" for name in (*manifest.VERDICTS, *HIDDEN, *OUTPUT)],
    ],
)
def test_the_bounds_and_names_are_those_of_the_code(said: str) -> None:
    assert said.replace("\n", " ") in TEXT.replace("\n", " ")
