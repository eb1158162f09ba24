"""Tokens that allow some models: every method refuses the others, and lists only those allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, feedback_pb2, model_pb2, prediction_pb2
from mlpserve_model import Store
from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_server.security.scope import ALL
from mlpserve_server.security.tokens import read_tokens
from tests.server.security.test_tokens import SECOND, TOKEN, bearer
from tests.support.publishing import publish_to
from tests.support.server import Refusal, Serve, Stubs
from tests.support.waiting import eventually

DENIED, INVALID = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT
ROW = np.full(12, 0.5, np.float32).tobytes()
ONE = prediction_pb2.Tensor(dtype=prediction_pb2.DATA_TYPE_FLOAT32, shape=[12], data=ROW)
ROWS = prediction_pb2.Tensor(dtype=prediction_pb2.DATA_TYPE_FLOAT32, shape=[1, 12], data=ROW)
Input = inference_pb2.ModelInferRequest.InferInputTensor
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the token file."""

    def write(*lines: str) -> Path:
        new = tmp_path / "new"
        new.write_text("\n".join(lines))
        new.chmod(0o600)
        return new.replace(tmp_path / "tokens")

    return write


@pytest.fixture
def stubs(store: Store, serve: Serve, write: Write, tmp_path: Path) -> Stubs:
    """A server with three models; TOKEN allows two of them, SECOND all."""
    for name in ("digits", "shop-a", "shop-b"):
        publish_to(Store(store.folder.parent, name))
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-many-characters-and-more\n")
    keys.chmod(0o600)
    stubs = serve(
        model=("*",),
        default_model="digits",
        token_file=write(f"{TOKEN} shop-a shop-b*  # of a shop", SECOND),
        receipt_keys=keys,
        feedback=tmp_path / "reports",
    )
    eventually(stubs.serving)
    return stubs


def calls(stubs: Stubs, name: str) -> list[tuple[Any, Any]]:
    """Every method that names a model, with a request that names this one."""
    model = model_pb2.ModelSelector(name=name)
    tensor = Input(name="instances", datatype="FP32", shape=[1, 12])
    infer = inference_pb2.ModelInferRequest(
        model_name=name, inputs=[tensor], raw_input_contents=[ROW]
    )
    found: list[tuple[Any, Any]] = [
        (stubs.prediction.Predict, prediction_pb2.PredictRequest(instance=ONE, model=model)),
        (
            stubs.prediction.BatchPredict,
            prediction_pb2.BatchPredictRequest(instances=ROWS, model=model),
        ),
        (
            stubs.explanation.Explain,
            explanation_pb2.ExplainRequest(instances=ROWS, model=model),
        ),
        (stubs.models.GetModelVersion, model_pb2.GetModelVersionRequest(model=model)),
        (stubs.models.ListModelVersions, model_pb2.ListModelVersionsRequest(name=name)),
    ]
    if name:
        found += [
            (stubs.inference.ModelInfer, infer),
            (stubs.inference.ModelReady, inference_pb2.ModelReadyRequest(name=name)),
            (stubs.inference.ModelMetadata, inference_pb2.ModelMetadataRequest(name=name)),
            (stubs.inference.ModelConfig, inference_pb2.ModelConfigRequest(name=name)),
        ]
    return found


def refused(call: Any, request: Any, token: str) -> Refusal:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, metadata=bearer(token), timeout=10)
    return Refusal(caught.value)


def receipt_of(stubs: Stubs, name: str) -> bytes:
    request = prediction_pb2.PredictRequest(
        instance=ONE, model=model_pb2.ModelSelector(name=name), receipt=True
    )
    return bytes(stubs.prediction.Predict(request, metadata=bearer(SECOND)).receipt)


def test_every_method_refuses_a_model_that_the_token_does_not_allow(stubs: Stubs) -> None:
    for token, names in ((TOKEN, ("shop-a", "shop-b")), (SECOND, ("digits", "shop-a", ""))):
        for name in names:
            for call, request in calls(stubs, name):
                call(request, metadata=bearer(token), timeout=10)
    # The default model counts by its name; a model that does not exist looks like any other.
    for name, shown in (("digits", "digits"), ("", "digits"), ("nothing", "nothing")):
        for call, request in calls(stubs, name):
            found = refused(call, request, TOKEN)
            assert (found.code, found.info.reason) == (DENIED, "MODEL_FORBIDDEN"), request
            assert repr(shown) in found.message
            assert TOKEN not in found.message


def test_lists_and_messages_have_only_the_models_that_the_token_allows(stubs: Stubs) -> None:
    def listed(token: str, **page: Any) -> model_pb2.ListModelsResponse:
        request = model_pb2.ListModelsRequest(**page)
        answer: model_pb2.ListModelsResponse = stubs.models.ListModels(
            request, metadata=bearer(token), timeout=10
        )
        return answer

    assert [m.ref.name for m in listed(SECOND).models] == ["digits", "shop-a", "shop-b"]
    first = listed(TOKEN, page_size=1)
    rest = listed(TOKEN, page_size=1, page_token=first.next_page_token)
    assert [m.ref.name for m in (*first.models, *rest.models)] == ["shop-a", "shop-b"]
    assert not rest.next_page_token
    index = stubs.inference.RepositoryIndex(
        inference_pb2.RepositoryIndexRequest(), metadata=bearer(TOKEN), timeout=10
    )
    assert {model.name for model in index.models} == {"shop-a", "shop-b"}
    request = model_pb2.GetModelVersionRequest(model=model_pb2.ModelSelector(name="shop-bb"))
    found = refused(stubs.models.GetModelVersion, request, TOKEN)
    assert found.code == grpc.StatusCode.NOT_FOUND
    assert "served: shop-a, shop-b; did you mean" in found.message


def test_a_report_is_taken_from_a_token_that_allows_the_model_of_its_answer(stubs: Stubs) -> None:
    def request(name: str) -> feedback_pb2.ReportRequest:
        report = feedback_pb2.Report(receipt=receipt_of(stubs, name), right=True)
        return feedback_pb2.ReportRequest(reports=[report])

    found = refused(stubs.feedback.Report, request("digits"), TOKEN)
    assert (found.code, found.info.reason) == (DENIED, "MODEL_FORBIDDEN")
    answer = stubs.feedback.Report(request("shop-a"), metadata=bearer(TOKEN), timeout=10)
    assert answer.recorded == 1


def test_a_scope_changes_with_the_file(stubs: Stubs, write: Write) -> None:
    call, request = calls(stubs, "shop-b")[0]
    call(request, metadata=bearer(TOKEN), timeout=10)
    write(f"{TOKEN} digits", SECOND)

    def is_refused() -> bool:
        try:
            call(request, metadata=bearer(TOKEN), timeout=10)
        except grpc.RpcError as error:
            return bool(error.code() == DENIED)
        return False

    eventually(is_refused)
    call, request = calls(stubs, "")[0]
    assert call(request, metadata=bearer(TOKEN), timeout=10).model.name == "digits"


def test_calls_of_several_tokens_share_products_and_not_scopes(stubs: Stubs) -> None:
    requests = [(name, token) for name in ("digits", "shop-a") for token in (TOKEN, SECOND)] * 50
    futures = [
        stubs.prediction.Predict.future(
            prediction_pb2.PredictRequest(instance=ONE, model=model_pb2.ModelSelector(name=name)),
            metadata=bearer(token),
            timeout=20,
        )
        for name, token in requests
    ]
    for (name, token), future in zip(requests, futures, strict=True):
        if (name, token) == ("digits", TOKEN):
            error = future.exception()
            assert isinstance(error, grpc.RpcError)
            assert Refusal(error).code == DENIED
        else:
            assert future.result().model.name == name


@pytest.mark.parametrize(
    ("lines", "model", "allowed"),
    [
        ([f"{TOKEN}"], "digits", True),
        ([f"{TOKEN} # shop-*"], "digits", True),
        ([f"{TOKEN} shop-* # digits"], "digits", False),
        ([f"{TOKEN}\tshop-a \t letters"], "letters", True),
        ([f"{TOKEN} shop-a", f"{TOKEN} digits"], "digits", True),
        ([f"{TOKEN} shop-a", f"{TOKEN}"], "digits", True),
        ([f"{TOKEN}", f"{TOKEN} shop-a"], "digits", True),
    ],
)
def test_a_line_names_what_its_token_allows(
    write: Write, lines: list[str], model: str, allowed: bool
) -> None:
    scope = read_tokens(write(*lines)).scope(bearer(TOKEN))
    assert scope is not None
    assert scope.allows(model) == allowed


def test_what_is_no_model_behind_a_token_is_refused_and_the_token_not_repeated(
    write: Write,
) -> None:
    for words in ("Shop", "shop/a", "shop-a,shop-b", "[ab]"):
        with pytest.raises(UnusableFile, match=r"line 1 of .*, and after it names") as caught:
            read_tokens(write(f"{TOKEN} {words}"))
        assert TOKEN not in str(caught.value)
    assert read_tokens(write(TOKEN)).scope(bearer(TOKEN)) is ALL
