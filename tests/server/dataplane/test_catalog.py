"""ModelService tells what is in the store and what of it is served."""

import math
import shutil
from typing import Any

import grpc
import pytest

from mlpserve.v1 import model_pb2
from mlpserve_model import Store, Verdict
from tests.support.publishing import Publish
from tests.support.server import Refuse, Serve, Stubs
from tests.support.waiting import eventually

State = model_pb2.ModelVersion


def pages(stubs: Stubs, size: int) -> list[list[Any]]:
    found: list[list[Any]] = []
    token = ""
    while not found or token:
        request = model_pb2.ListModelVersionsRequest(page_size=size, page_token=token)
        answer = stubs.models.ListModelVersions(request)
        found.append(list(answer.model_versions))
        token = answer.next_page_token
    return found


def test_the_served_version_is_described_whole(
    store: Store, publish: Publish, serve: Serve
) -> None:
    version = publish()
    stubs = serve()
    eventually(stubs.serving)
    answer = stubs.models.GetModelVersion(model_pb2.GetModelVersionRequest()).model_version
    manifest = store.manifest(version)
    assert (answer.ref.version, answer.ref.digest) == (version, manifest.digest)
    assert answer.state == State.STATE_ACTIVE
    assert list(answer.aliases) == ["champion"]
    assert list(answer.input_shape) == [3, 4]
    assert list(answer.class_names) == ["circle", "square", "star"]
    assert answer.create_time.ToSeconds() == int(manifest.created.timestamp())
    assert dict(answer.metrics) == {"accuracy": 0.9}


def test_every_version_is_listed_newest_first_with_its_state(
    store: Store, publish: Publish, serve: Serve
) -> None:
    publish()
    damaged = publish(seed=1, promote=False)
    (store.path(damaged) / "manifest.json").write_text("{}")
    publish(seed=2, promote=False, verdict=Verdict("REJECTED", ("too bad",)))
    publish(seed=3)
    stubs = serve()
    eventually(stubs.serving)
    (versions,) = pages(stubs, 0)
    states = {v.ref.version: (v.state, v.state_reason) for v in versions}
    assert [v.ref.version for v in versions] == [4, 3, 2, 1]
    assert states[4][0] == State.STATE_ACTIVE
    assert states[3] == (State.STATE_REJECTED, "too bad")
    assert states[2] == (State.STATE_FAILED, "manifest.json has no format")
    assert states[1] == (State.STATE_STANDBY, "loaded when it is selected")


def test_the_list_is_paged(publish: Publish, serve: Serve) -> None:
    for seed in range(5):
        publish(seed=seed)
    stubs = serve()
    eventually(stubs.serving)
    found = [[v.ref.version for v in page] for page in pages(stubs, 2)]
    assert found == [[5, 4], [3, 2], [1]]


def test_pages_share_a_listing_of_the_store_and_show_what_is_removed_meanwhile(
    publish: Publish, serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(8):
        publish(seed=seed)
    stubs = serve(standby=0)
    eventually(stubs.serving)
    listings = []
    followed = stubs.manager.store
    newest = followed.newest

    def counting(below: float = math.inf) -> Any:
        listings.append(below)
        return newest(below)

    monkeypatch.setattr(followed, "newest", counting)
    request = model_pb2.ListModelVersionsRequest(page_size=2)
    found = []
    for removed in (None, None, 3, None):
        if removed:
            shutil.rmtree(store.path(removed))
        page = stubs.models.ListModelVersions(request, timeout=10)
        found.append([version.ref.version for version in page.model_versions])
        request.page_token = page.next_page_token
    assert found == [[8, 7], [6, 5], [4, 2], [1]]
    assert listings[-2:] == [math.inf, 7]


def test_an_empty_store_has_an_empty_list(store: Store, serve: Serve) -> None:
    store.folder.mkdir(parents=True)
    assert pages(serve(), 0) == [[]]


def test_a_store_that_is_not_there_is_not_an_empty_one(serve: Serve, refusal: Refuse) -> None:
    refused = refusal(serve().models.ListModelVersions, model_pb2.ListModelVersionsRequest())
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"page_size": -1}, "page_size"), ({"page_token": "x"}, "page_token")],
)
def test_a_wrong_page_is_refused(
    changes: dict[str, Any], field: str, serve: Serve, refusal: Refuse
) -> None:
    request = model_pb2.ListModelVersionsRequest(**changes)
    refused = refusal(serve().models.ListModelVersions, request)
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


@pytest.mark.parametrize("selector", [{"version": 9}, {"alias": "nobody"}])
def test_an_unknown_version_is_not_found(
    selector: dict[str, Any], publish: Publish, serve: Serve, refusal: Refuse
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    chosen = model_pb2.ModelSelector(**selector)
    request = model_pb2.GetModelVersionRequest(model=chosen)
    assert refusal(stubs.models.GetModelVersion, request).code == grpc.StatusCode.NOT_FOUND


def test_nothing_served_is_unavailable(serve: Serve, refusal: Refuse) -> None:
    refused = refusal(serve().models.GetModelVersion, model_pb2.GetModelVersionRequest())
    assert refused.code == grpc.StatusCode.UNAVAILABLE


def test_reflection_lists_the_services(serve: Serve) -> None:
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    stubs = serve()
    services = set(ProtoReflectionDescriptorDatabase(stubs.channel).get_services())
    assert {"mlpserve.v1.PredictionService", "mlpserve.v1.ModelService"} <= services
    assert "grpc.health.v1.Health" in services
