"""Fuzz one target with atheris, guided by coverage: `one NAME`, then flags of libFuzzer."""

import logging
import sys
import warnings

import atheris

from tests.fuzz.target import load_targets

PACKAGES = [
    "mlpserve_model",
    "mlpserve_server",
    "mlpserve_trainer",
    "mlpserve_client",
    "mlpserve_web",
]

if __name__ == "__main__":
    name = sys.argv[1]
    with atheris.instrument_imports(include=PACKAGES):
        found = load_targets(name.partition(".")[0])[name]
    logging.disable()
    warnings.simplefilter("error")  # as in the tests
    atheris.Setup([sys.argv[0], *sys.argv[2:]], found)
    atheris.Fuzz()
