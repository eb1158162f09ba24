"""Which model a receipt is for has to be tried: how often is bounded by the models in use."""

from pathlib import Path

from mlpserve.v1 import feedback_pb2 as fb
from mlpserve_model import Store
from mlpserve_model.store.evidence.receipts import Receipt, ReceiptKeys, weights_of
from mlpserve_server.dataplane.reports import ReportReader
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.security.scope import ALL
from tests.server.evidence.conftest import KEY
from tests.support.managers import models_of
from tests.support.publishing import publish_to

MODELS, REPORTS = 12, 40


class Counting(ReceiptKeys):
    """Keys that count how often they verify."""

    verified = 0

    def verify(self, data: bytes, model: str) -> Receipt:
        self.verified += 1
        return super().verify(data, model)


def test_reports_on_models_by_turns_are_not_tried_on_all_models(tmp_path: Path) -> None:
    stores = [Store(tmp_path, f"model-{n:02d}") for n in range(MODELS)]
    managers = []
    for store in stores:
        publish_to(store)
        managers.append(ModelManager(Loader(store), "champion"))
        managers[-1].poll()
    reader, keys = ReportReader(models_of(*managers)), Counting([KEY])
    for turn in range(REPORTS):
        store = stores[-1 - turn % 2]
        weights = weights_of(store.manifest(1).digest)
        receipt = Receipt(False, 1, 1_800_000_000, 0, 0.5, bytes(8), weights, serial=turn)
        report = fb.Report(receipt=keys.sign(receipt, store.model), right=True)
        record = reader.record(report, "reports[0]", keys, "", 1_800_000_001.0, ALL)
        assert record.model == store.model
    assert keys.verified <= 2 * MODELS + 2 * REPORTS
