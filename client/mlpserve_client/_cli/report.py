"""The command `mlpserve-client report`: what the truth about an answer was."""

import json
from argparse import Namespace

from mlpserve_client._cli.sources import Array, read_rows
from mlpserve_client._errors import SettingsError
from mlpserve_client._sync import Client


def report(client: Client, arguments: Namespace) -> int:
    """Send one report and print whether it is new."""
    right = None if arguments.class_name is not None else bool(arguments.right)
    result = client.report(
        arguments.receipt,
        class_name=arguments.class_name,
        right=right,
        instance=_instance(client, arguments),
        note=arguments.note,
    )
    if arguments.json:
        print(json.dumps({"recorded": result.recorded, "known": result.known}))
    else:
        print("recorded" if result.recorded else "known: this answer was reported before")
    return 0


def _instance(client: Client, arguments: Namespace) -> Array | None:
    name = arguments.instance
    if name is None:
        for flag, given in (("--index", arguments.index), ("--model", arguments.model)):
            if given is not None:
                raise SettingsError(f"{flag} needs --instance: the receipt says all else")
        return None
    rows = read_rows(name, client.model(), arguments.index).rows
    if len(rows) != 1:
        raise SettingsError(f"{name} has {len(rows)} rows: --index says which was classified")
    row: Array = rows[0]
    return row
