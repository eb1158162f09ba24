"""`mlpserve-trainer import`: judge a network of another program, publish it and promote it."""

import argparse
import json
from pathlib import Path

from mlpserve_model import Store
from mlpserve_model.interchange.commands import add_import_flags, import_options
from mlpserve_model.interchange.importing import import_network
from mlpserve_model.interchange.publishing import draft_of
from mlpserve_model.process.arguments import SettingsParser
from mlpserve_model.process.log import set_up
from mlpserve_model.process.tables import plain
from mlpserve_trainer.commands.flags import add_gate_flags, gate_rules
from mlpserve_trainer.release.foreign import publish_foreign, read_holdout

__all__ = ["add_flags", "run"]

DONE, REJECTED = 0, 3


def add_flags(parser: SettingsParser) -> None:
    """Add the flags of the command."""
    add_import_flags(parser)
    parser.add_argument(
        "--holdout",
        type=Path,
        required=True,
        metavar="DATA",
        help="labelled data that the network was not trained on: .npz with X and y, or .csv",
    )
    parser.add_argument(
        "--calibration",
        choices=("temperature", "none"),
        default="temperature",
        help="calibration of the probabilities, on a fifth of the labelled data",
    )
    add_gate_flags(parser)
    parser.add_store()
    parser.add_logging()
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(options: argparse.Namespace) -> int:
    """Import, judge and publish; return the exit code."""
    set_up(options.log_format, options.log_level)
    store, rules = Store(options.store, options.model), gate_rules(options)
    found = import_network(options.file, import_options(options))
    draft = draft_of(found, options.file, options.model)
    labelled = read_holdout(options.holdout, draft.signature)
    published = publish_foreign(
        store,
        draft,
        found.weights,
        labelled,
        rules,
        plain(options.holdout.name),
        options.alias,
        calibrates=options.calibration == "temperature",
    )
    manifest = published.manifest
    if options.json:
        facts = {
            "version": manifest.version,
            "verdict": manifest.gate.verdict,
            "reasons": manifest.gate.reasons,
            "metrics": dict(manifest.metrics),
            "digest": manifest.digest,
            "notes": found.notes,
        }
        print(json.dumps(facts))
    else:
        print(published.report)
        print(f"accuracy {manifest.metrics['accuracy']:.4f}")
        print(f"\nversion {manifest.version}: {manifest.gate.verdict}")
        for line in (*manifest.gate.reasons, *map(plain, found.notes)):
            print(f"  {line}")
        print(f"  its report: {store}/{manifest.version}/report.html")
    return REJECTED if manifest.gate.verdict == "REJECTED" else DONE
