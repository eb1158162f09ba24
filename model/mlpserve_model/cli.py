"""mlpserve-models: list, check, promote, import and prune the versions in a store."""

import json
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mlpserve_model.format.errors import CorruptVersion, StoreError, VersionNotFound
from mlpserve_model.format.manifest import Verdict
from mlpserve_model.interchange.commands import (
    add_export,
    add_import,
    export_file,
    has_holdout,
    import_file,
    run_trainer,
)
from mlpserve_model.process.arguments import MAX_VERSION, SettingsParser, between
from mlpserve_model.process.streams import printing
from mlpserve_model.process.tables import described, plain, table
from mlpserve_model.store.listing import other_models
from mlpserve_model.store.location import no_folder
from mlpserve_model.store.overview import missing, model_rows, names_of, of_all, version_rows
from mlpserve_model.store.store import CHAMPION, Store

__all__ = ["main", "parser"]

_MAX_DIGITS = 18  # of a version
_MAX_REASON = 100  # characters of a line of the list; show has all


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 wrong usage."""
    return printing("mlpserve-models", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    if has_holdout(given):
        return run_trainer(given)
    settings = parser().parse_args(given)
    try:
        code: int = settings.run(Store(settings.store, settings.model), settings)
    except StoreError as error:
        is_missing = isinstance(error, VersionNotFound)
        there_is = other_models(settings.store, settings.model) if is_missing else ""
        print(f"mlpserve-models: {plain(str(error))}{there_is}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def parser() -> SettingsParser:
    """Describe the commands and their flags."""
    program = SettingsParser(prog="mlpserve-models", description="Look after the store of models.")
    program.add_version()
    commands = program.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Store, Namespace], int], text: str) -> SettingsParser:
        sub: SettingsParser = commands.add_parser(name, help=text, description=text)
        sub.add_store()
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(run=run)
        return sub

    listing = command("list", _list, "list the versions, newest first")
    listing.add_argument(
        "--models", action="store_true", help="list the models of the store instead"
    )
    show = command("show", _show, "print everything about one version")
    show.add_argument("version", nargs="?", default=CHAMPION, help="version: a number or an alias")
    promote = command("promote", _promote, "point an alias at a version")
    promote.add_argument("version", type=between(1, MAX_VERSION, int), help="number of the version")
    promote.add_argument("--alias", default=CHAMPION, help="alias that moves")
    promote.add_argument("--reason", required=True, help="reason, for the history")
    promote.add_argument(
        "--force",
        action="store_true",
        help="publish a rejected version again, as forced, and promote that",
    )
    rollback = command("rollback", _rollback, "point champion back at an earlier version")
    rollback.add_argument(
        "--to", type=between(1, MAX_VERSION, int), required=True, help="number of the version"
    )
    rollback.add_argument("--reason", required=True, help="reason, for the history")
    add_export(command("export", _export, "write a version as a file of another format"))
    add_import(command("import", import_file, "publish a network that another program made"))
    verify = command("verify", _verify, "check files, digests and self-tests of all versions")
    verify.add_argument(
        "version",
        nargs="*",
        help="versions to verify, numbers or aliases; without any, all of them",
    )
    prune = command("prune", _prune, "remove old versions; those with an alias stay")
    prune.add_argument(
        "--keep",
        type=between(1, 1_000_000, int),
        default=10,
        help="number of newest versions that stay",
    )
    return program


def _list(store: Store, settings: Namespace) -> int:
    if settings.models:
        return _list_models(settings)
    _check_model(store, settings)
    rows = version_rows(store)
    if settings.json:
        _print_json(rows)
    else:
        print(table(_HEADER, map(_line, rows)) if rows else _nothing(store, settings))
    return 0


def _check_model(store: Store, settings: Namespace) -> None:
    """Raise VersionNotFound where the store has other models and nothing of this one."""
    if not store.aliases() and other_models(settings.store, store.model):
        raise VersionNotFound(f"no versions of {store.model} in {settings.store}")


def _list_models(settings: Namespace) -> int:
    rows = [] if no_folder(settings.store) else model_rows(settings.store)
    if settings.json:
        _print_json(rows)
    elif rows:
        header = ("MODEL", "VERSIONS", "CHAMPION")
        lines = ((r["model"], r["versions"], r["champion"] or "none") for r in rows)
        print(table(header, (tuple(map(str, line)) for line in lines)))
    else:
        print(f"no models in {settings.store}{no_folder(settings.store)}")
    return 0


def _nothing(store: Store, settings: Namespace) -> str:
    return f"no versions of {store.model} in {settings.store}{no_folder(settings.store)}"


def _show(store: Store, settings: Namespace) -> int:
    version = _resolve(store, settings.version)
    manifest = store.manifest(version)
    document = json.loads(manifest.document) | {"aliases": names_of(store.aliases(), version)}
    if settings.json:
        _print_json(document)
    else:
        print("\n".join(described(document)))
    return 0


def _promote(store: Store, settings: Namespace) -> int:
    return _move(store, settings, settings.alias, settings.version, "promote", settings.force)


def _rollback(store: Store, settings: Namespace) -> int:
    return _move(store, settings, CHAMPION, settings.to, "rollback")


def _move(
    store: Store, settings: Namespace, alias: str, version: int, event: str, force: bool = False
) -> int:
    with store.lock():
        wanted, version = version, _accepted(store, version, settings.reason, force)
        previous = store.aliases().get(alias)
        if previous != version:
            store.move_alias(alias, version, expected=previous, event=event, reason=settings.reason)
    if settings.json:
        _print_json({"alias": alias, "version": version, "previous": previous})
    elif previous == version:
        print(f"{alias} is at {version} already: nothing to do")
    else:
        if version != wanted:
            print(f"version {wanted}, which the gate rejected, is published again as {version}")
        print(f"{alias}: {previous or 'nothing'} -> {version}")
    return 0


def _accepted(store: Store, version: int, reason: str, force: bool) -> int:
    """Return the version that may be served: this one, or a forced copy of a rejected one."""
    manifest = store.verify(version)
    if manifest.gate.verdict != "REJECTED":
        return version
    reasons = manifest.gate.reasons
    if not force:
        raise CorruptVersion(
            f"the gate rejected version {version}: {'; '.join(reasons)} (promote has --force)"
        )
    forced = Verdict("FORCED", (f"forced: {reason}", f"rejected as version {version}", *reasons))
    return store.republish(version, forced).version


def _verify(store: Store, settings: Namespace) -> int:
    _check_model(store, settings)
    chosen = [_resolve(store, text) for text in settings.version]
    fault_of, aliases = partial(_fault, store), store.aliases()
    faults = (
        {version: fault_of(version) for version in chosen}
        if chosen
        else of_all(store, aliases, fault_of, partial(missing, aliases))
    )
    if settings.json:
        _print_json([{"version": v, "ok": not f, "fault": f} for v, f in faults.items()])
    else:
        for version, fault in faults.items():
            print(f"{version:>6}  {fault or 'ok'}")
        bad = sum(fault is not None for fault in faults.values())
        print(f"{len(faults) - bad} whole, {bad} damaged")
    return 1 if any(faults.values()) else 0


def _export(store: Store, settings: Namespace) -> int:
    _check_model(store, settings)
    return export_file(store, _resolve(store, settings.version), settings)


def _prune(store: Store, settings: Namespace) -> int:
    _check_model(store, settings)
    removed = store.prune(settings.keep)
    if settings.json:
        _print_json({"removed": removed, "kept": store.versions()})
    else:
        numbers = ", ".join(map(str, removed))
        print(f"versions removed: {numbers or 'none'}")
    return 0


_HEADER = ("VERSION", "VERDICT", "ALIASES", "ACCURACY", "CREATED", "REASON")


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    accuracy = row.get("metrics", {}).get("accuracy")
    reasons = [text for text in row.get("reasons", ()) if not text.startswith("passed")]
    why = "; ".join(reasons) if row["verdict"] != "PROMOTED" else ""
    return (
        str(row["version"]),
        row["verdict"],
        ",".join(row["aliases"]),
        "" if accuracy is None else f"{accuracy:.4f}",
        row.get("created", "")[:19].replace("T", " "),
        row.get("fault") or textwrap.shorten(why, _MAX_REASON, placeholder=" ..."),
    )


def _resolve(store: Store, text: str) -> int:
    """Return the number that this text or alias means; raises VersionNotFound."""
    if not text.isdecimal():
        return store.resolve(text)
    if len(text) > _MAX_DIGITS:
        raise VersionNotFound(f"{store.model} has no version of {len(text)} digits")
    return int(text)


def _fault(store: Store, version: int) -> str | None:
    try:
        store.verify(version)
    except VersionNotFound:
        raise
    except StoreError as error:
        return str(error)
    return None


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))
