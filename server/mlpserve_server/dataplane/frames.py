"""The constant parts of answers, encoded once for each version."""

import hashlib
from collections import OrderedDict
from typing import NamedTuple

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_model import Manifest

__all__ = ["Frame", "frame_of", "model_ref", "output_kind"]

# Versions that answer by turns.
_KEPT = 64
_OUTPUT_KINDS = {
    "softmax": model_pb2.OUTPUT_KIND_DISTRIBUTION,
    "sigmoid": model_pb2.OUTPUT_KIND_INDEPENDENT,
    "identity": model_pb2.OUTPUT_KIND_VALUES,
}

_frames: OrderedDict[int, tuple[Manifest, "Frame"]] = OrderedDict()


class Frame(NamedTuple):
    """What stands before the probabilities of a PredictResponse, for each label, and after.

    Packed probabilities lie in the message as they do in an array. So the rest is encoded once,
    and a response is put together from three pieces, at a tenth of the cost. Messages put end
    to end are one message, by the definition of the encoding.
    """

    heads: tuple[bytes, ...]
    tail: bytes
    names: bytes
    names_hash: int

    def names_for(self, known: int | None) -> bytes:
        """Return the field `class_names` for a caller that has names of this hash, if any."""
        return b"" if known is None or known == self.names_hash else self.names


def frame_of(manifest: Manifest) -> Frame:
    """Return the frame of a version's answers; the first call for a manifest makes it."""
    # By identity: a manifest cannot be hashed, and comparing one costs more than the answer.
    known = _frames.get(id(manifest))
    if known is not None and known[0] is manifest:
        return known[1]
    frame = _make(manifest)
    _frames[id(manifest)] = manifest, frame
    while len(_frames) > _KEPT:
        _frames.popitem(last=False)
    return frame


def model_ref(manifest: Manifest) -> model_pb2.ModelRef:
    """Return how answers name the version that gave them."""
    return model_pb2.ModelRef(name=manifest.model, version=manifest.version, digest=manifest.digest)


def output_kind(manifest: Manifest) -> model_pb2.OutputKind.ValueType:
    """Return what the values of a version's answers are."""
    return _OUTPUT_KINDS[manifest.network.output_activation]


def names_hash(names: tuple[str, ...]) -> int:
    """Return the hash by which callers say which class names they have.

    It is -1, which no caller says, where a name has a newline: others could give the same hash.
    """
    if any("\n" in name for name in names):
        return -1
    digest = hashlib.sha256("\n".join(names).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _make(manifest: Manifest) -> Frame:
    response, classes = prediction_pb2.PredictResponse, len(manifest.signature.class_names)
    start = response(probabilities=[0.0] * classes).SerializeToString()[: -4 * classes]
    labels = (response(label=label).SerializeToString() for label in range(classes))
    tail = response(model=model_ref(manifest), output_kind=output_kind(manifest))
    return Frame(
        heads=tuple(label + start for label in labels),
        tail=tail.SerializeToString(),
        names=response(class_names=manifest.signature.class_names).SerializeToString(),
        names_hash=names_hash(manifest.signature.class_names),
    )
