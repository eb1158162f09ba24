"""Random damage to the three files: it is rejected, or it changes nothing about the model."""

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mlpserve_model import CorruptVersion, Manifest, Store, StoredModel
from mlpserve_model.format import version_files as stored
from mlpserve_model.format.arrays import decode_weights, encode_weights
from mlpserve_model.format.manifest import FileInfo
from tests.support.forging import Rejection

FILES = ("model.npz", "golden.npz", "manifest.json")
DEFAULT, MANY = 2_000, 100_000
Generator = np.random.Generator


def _flip_bit(data: bytearray, rng: Generator) -> None:
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))


def _flip_some(data: bytearray, rng: Generator) -> None:
    for _ in range(rng.integers(2, 8)):
        data[rng.integers(len(data))] = rng.integers(256)


def _cut_out(data: bytearray, rng: Generator) -> None:
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, 64))]


def _cut_off(data: bytearray, rng: Generator) -> None:
    del data[rng.integers(len(data)) :]


def _insert(data: bytearray, rng: Generator) -> None:
    start = int(rng.integers(len(data) + 1))
    data[start:start] = rng.bytes(int(rng.integers(1, 64)))


def _repeat(data: bytearray, rng: Generator) -> None:
    start, to = (int(n) for n in rng.integers(len(data), size=2))
    data[to:to] = data[start : start + int(rng.integers(1, 64))]


def _change_digit(data: bytearray, rng: Generator) -> None:
    """Damage that stays well-formed text: another digit, where there is one."""
    digits = [i for i, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    data[digits[rng.integers(len(digits))] if digits else 0] = int(rng.integers(0x30, 0x3A))


MUTATORS = (_flip_bit, _flip_some, _cut_out, _cut_off, _insert, _repeat, _change_digit)


class Outcome(NamedTuple):
    """How the mutations ended, and which of them gave another model."""

    counts: Counter[str]
    other_models: list[str]


@pytest.fixture
def original(published: Manifest, store: Store) -> StoredModel:
    return store.load(1)


@pytest.fixture
def outcome(store: Store, original: StoredModel) -> Callable[[int], Outcome]:
    """Damages the version's files this many times and reads it each time."""
    kept = {name: (store.path(1) / name).read_bytes() for name in FILES}

    def mutations(count: int) -> Iterator[tuple[Path, bytes, str]]:
        rng = np.random.default_rng(5)
        for _ in range(count):
            name, mutator = str(rng.choice(FILES)), MUTATORS[rng.integers(len(MUTATORS))]
            data = bytearray(kept[name])
            mutator(data, rng)
            yield store.path(1) / name, bytes(data), f"{mutator.__name__} in {name}"
            if name == "model.npz":
                yield store.path(1) / name, _resealed(original, rng), "a bit of a weight"

    def run(count: int) -> Outcome:
        counts, others = Counter[str](), []
        for path, data, label in mutations(count):
            _write(path, data)
            try:
                loaded = Store(store.root, store.model).load(1)
            except CorruptVersion as error:
                assert type(error) is CorruptVersion  # noqa: PT017  # nothing else is caught
                counts["rejected"] += 1
            else:
                same_text = loaded.manifest == original.manifest
                counts["the same" if same_text else "the same, described otherwise"] += 1
                if not _same_model(loaded, original):
                    others.append(label)
            _write(path, kept[path.name])
        return Outcome(counts, others)

    return run


def _write(path: Path, data: bytes) -> None:
    path.unlink()  # some file systems take milliseconds to truncate
    path.write_bytes(data)


def _resealed(original: StoredModel, rng: Generator) -> bytes:
    """A well-formed model.npz, checksums and all, with one low bit of one weight flipped."""
    weights = decode_weights(encode_weights(original.weights), original.manifest.network)
    w = weights[0].w.copy()
    w.view(np.uint32)[tuple(rng.integers(w.shape))] ^= np.uint32(1 << int(rng.integers(12)))
    return encode_weights((weights[0]._replace(w=w), *weights[1:]))


def _same_model(one: StoredModel, other: StoredModel) -> bool:
    """Alike in all that computes an answer and says whose it is."""
    bits = [[array.tobytes() for layer in m.weights for array in layer] for m in (one, other)]
    identity = [(m.manifest.model, m.manifest.version, m.manifest.digest) for m in (one, other)]
    network = [m.manifest.network for m in (one, other)]
    return bits[0] == bits[1] and identity[0] == identity[1] and network[0] == network[1]


def _assert_none_accepted_as_another(outcome: Outcome) -> None:
    print(f"\n{sum(outcome.counts.values())} mutations: {dict(outcome.counts)}")
    assert outcome.other_models == []
    assert outcome.counts["the same, described otherwise"] == 0
    assert outcome.counts["rejected"] > 10 * outcome.counts["the same"] > 0


def test_a_mutated_version_is_rejected_or_the_very_same_model(
    outcome: Callable[[int], Outcome],
) -> None:
    _assert_none_accepted_as_another(outcome(DEFAULT))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_none_of_many_mutations_is_accepted_as_another_model(
    outcome: Callable[[int], Outcome],
) -> None:
    _assert_none_accepted_as_another(outcome(MANY))


def test_without_the_digest_mutations_are_accepted_as_other_models(
    outcome: Callable[[int], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_unverified(read: stored.Read, name: str, info: FileInfo, limit: int) -> bytes:
        return read(name, limit)

    monkeypatch.setattr(stored, "read_verified", read_unverified)
    assert "a bit of a weight" in outcome(200).other_models


def test_without_the_history_a_damaged_manifest_may_describe_the_model_otherwise(
    outcome: Callable[[int], Outcome], store: Store
) -> None:
    (store.folder / "history.jsonl").unlink()
    found = outcome(1000)
    assert found.counts["the same, described otherwise"] > 0
    assert found.other_models == []


def test_the_loop_itself_tells_other_models_from_the_same(original: StoredModel) -> None:
    other = _resealed(original, np.random.default_rng(0))
    changed = replace(original, weights=decode_weights(other, original.manifest.network))
    assert _same_model(original, original)
    assert not _same_model(original, changed)


def test_random_bytes_are_never_a_version(
    published: Manifest, store: Store, rejection: Rejection
) -> None:
    rng = np.random.default_rng(6)
    for name in FILES:
        kept = (store.path(1) / name).read_bytes()
        for size in (1, 30, 1000):
            (store.path(1) / name).write_bytes(rng.bytes(size))
            assert rejection(lambda: store.load(1))
        (store.path(1) / name).write_bytes(kept)


def test_every_cut_of_the_archive_is_rejected_by_the_archives_own_rules(
    original: StoredModel,
) -> None:
    data = encode_weights(original.weights)
    for end in range(len(data)):
        with pytest.raises(CorruptVersion):
            decode_weights(data[:end], original.manifest.network)


def test_every_flipped_bit_of_the_archive_is_rejected_or_changes_no_weight(
    original: StoredModel,
) -> None:
    data, network = encode_weights(original.weights), original.manifest.network
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        try:
            weights = decode_weights(bytes(damaged), network)
        except CorruptVersion:
            continue
        assert encode_weights(weights) == data


def test_the_original_is_plain_json_and_plain_npz(original: StoredModel, store: Store) -> None:
    assert json.loads((store.path(1) / "manifest.json").read_bytes())["format"] == 1
    with zipfile.ZipFile(store.path(1) / "model.npz") as archive:
        assert archive.testzip() is None
    with np.load(store.path(1) / "model.npz", allow_pickle=False) as archive:
        assert archive.files == ["w1", "w2", "b1", "b2"]
