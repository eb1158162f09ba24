"""ModelService, bytes in and bytes out: the models, their versions and the state of each here."""

import itertools

from mlpserve.v1 import model_pb2
from mlpserve_model import StoreError
from mlpserve_server.dataplane import codec
from mlpserve_server.dataplane.descriptions import (
    describe_model,
    describe_selected,
    descriptions,
)
from mlpserve_server.dataplane.listing import Listing
from mlpserve_server.dataplane.query import Selection
from mlpserve_server.errors import InvalidInput, NotReady
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.security.scope import ALL, Scope

__all__ = ["Catalog"]

DEFAULT_PAGE, MAX_PAGE = 50, 200


class Catalog:
    """Describes versions by what the managers serve and the store holds."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._listing = Listing()

    def get_model_version(self, request: bytes, scope: Scope = ALL) -> bytes:
        """Answer a GetModelVersionRequest, both as bytes."""
        message = codec.parse(model_pb2.GetModelVersionRequest, request)
        described = self.describe(codec.selection(message.model), scope)
        return model_pb2.GetModelVersionResponse(model_version=described).SerializeToString()

    def list_model_versions(self, request: bytes, scope: Scope = ALL) -> bytes:
        """Answer a ListModelVersionsRequest, both as bytes.

        A token has the name of the model and the last number given.
        """
        message = codec.parse(model_pb2.ListModelVersionsRequest, request)
        size = _page_size(message.page_size)
        named, before = _below(message.page_token, message.name)
        manager = self.models.get(named, "name", scope)
        try:
            # One more than is given tells whether there is another page.
            page = list(itertools.islice(descriptions(manager, self._listing, before), size + 1))
        except StoreError as error:
            raise NotReady("the store cannot be read at the moment") from error
        more = len(page) > size
        token = f"{manager.store.model}/{page[size - 1].ref.version}" if more else ""
        response = model_pb2.ListModelVersionsResponse(next_page_token=token)
        response.model_versions.extend(page[:size])
        return response.SerializeToString()

    def list_models(self, request: bytes, scope: Scope = ALL) -> bytes:
        """Answer a ListModelsRequest with the models in scope; the token is the last name given."""
        message = codec.parse(model_pb2.ListModelsRequest, request)
        size = _page_size(message.page_size)
        managers = self.models.managers
        names = [name for name in scope.among(managers) if name > message.page_token]
        response = model_pb2.ListModelsResponse(
            models=[describe_model(managers[name]) for name in names[:size]],
            next_page_token=names[size - 1] if len(names) > size else "",
        )
        return response.SerializeToString()

    def describe(self, chosen: Selection, scope: Scope = ALL) -> model_pb2.ModelVersion:
        """Return the version that is selected; raises ServingError."""
        return describe_selected(self.models.get(chosen.name, scope=scope), chosen)


def _page_size(asked: int) -> int:
    """Return the number of versions in a page; raises InvalidInput."""
    if asked < 0:
        raise InvalidInput("page_size", f"page_size {asked}, expected 0 or more")
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def _below(token: str, name: str) -> tuple[str | None, float]:
    """Return the model of a page, and the number below which it begins; raises InvalidInput.

    Tokens of earlier releases are a number alone.
    """
    if not token:
        return name or None, float("inf")
    model, _, number = token.rpartition("/")
    right_model = not (model and name) or model == name
    if not right_model or not (number.isascii() and number.isdecimal() and len(number) < 20):
        raise InvalidInput(
            "page_token",
            "not a page token of this server and model: expected next_page_token of an answer",
        )
    return model or name or None, int(number)
