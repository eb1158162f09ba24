"""Names that others made into links, FIFOs or devices: none is followed, opened or waited for."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlpserve_model import CHAMPION, CorruptVersion, Store, StoreError, VersionNotFound
from mlpserve_model.store.atomic_files import (
    Directory,
    UnusableFile,
    make_folder,
    open_regular,
    write_atomic,
)
from mlpserve_model.store.file_lock import locked
from tests.support.forging import Publish

Make = Callable[[Path], object]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody else, which must stay as it is."""
    outside = tmp_path / "outside"
    (outside / "3").mkdir(parents=True)
    (outside / "3" / "file").write_text("mine")
    (outside / "file").write_text("mine")
    return outside


def _untouched(outside: Path) -> bool:
    found = {p.relative_to(outside).as_posix() for p in outside.rglob("*")}
    texts = {(outside / name).read_text() for name in ("file", "3/file")}
    return found == {"3", "3/file", "file"} and texts == {"mine"}


KINDS: dict[str, Make] = {
    "link": lambda path: path.symlink_to(path.parent / "outside" / "file"),
    "dangling link": lambda path: path.symlink_to(path.parent / "outside" / "new"),
    "fifo": os.mkfifo,
    "socket": lambda path: os.mknod(path, 0o140644),
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_a_regular_file_is_opened(kind: str, tmp_path: Path, outside: Path) -> None:
    KINDS[kind](tmp_path / "name")
    with Directory(tmp_path) as folder:
        for use in (
            lambda: folder.open("name"),
            lambda: folder.read("name", 10),
            lambda: folder.append("name", b"line\n"),
            lambda: locked(folder, "name", 1).__enter__(),
        ):
            with pytest.raises(UnusableFile, match="name is not a regular file but a"):
                use()
    assert _untouched(outside)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])
def test_a_write_replaces_the_name_and_not_what_it_points_at(
    kind: str, tmp_path: Path, outside: Path
) -> None:
    for name in ("name", f".name.{os.getpid()}.tmp"):
        KINDS[kind](tmp_path / name)
    write_atomic(tmp_path / "name", b"data")
    assert not (tmp_path / "name").is_symlink()
    assert (tmp_path / "name").read_bytes() == b"data"
    assert _untouched(outside)


def test_a_name_that_becomes_a_link_after_it_was_looked_at_is_refused(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "name"
    path.write_text("a file")
    opens = os.open

    def swapped(name: Any, *args: Any, **kwargs: Any) -> int:
        if name == "name":
            path.unlink(missing_ok=True)
            path.symlink_to(outside / "file")
        return opens(name, *args, **kwargs)

    with Directory(tmp_path) as folder:
        monkeypatch.setattr(os, "open", swapped)
        for use in (lambda: folder.read("name", 10), lambda: folder.append("name", b"line\n")):
            with pytest.raises(UnusableFile, match="symbolic link"):
                use()
    assert _untouched(outside)


def test_folders_that_are_links_are_neither_entered_nor_removed(
    tmp_path: Path, outside: Path
) -> None:
    (tmp_path / "link").symlink_to(outside)
    with Directory(tmp_path) as folder:
        with pytest.raises(NotADirectoryError, match="symbolic link, which is not followed"):
            folder.folder("link")
        with pytest.raises(NotADirectoryError):
            folder.folder("link", make=True)
        with pytest.raises(OSError, match="symbolic link"):
            folder.remove_tree("link")
    assert _untouched(outside)


def test_what_the_user_names_may_be_a_link_but_is_a_regular_file(
    tmp_path: Path, outside: Path
) -> None:
    (tmp_path / "link").symlink_to(outside / "file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"mine"
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UnusableFile, match="fifo is not a regular file but a FIFO"):
        open_regular(tmp_path / "fifo")
    (tmp_path / "folder").symlink_to(outside)
    make_folder(tmp_path / "folder" / "new")
    assert (outside / "new").is_dir()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "name", b"old")

    def fail_half_way(folder: Directory) -> None:
        with folder.writing("name") as file:
            file.write(b"half")
            raise RuntimeError

    with Directory(tmp_path) as folder, pytest.raises(RuntimeError):
        fail_half_way(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["name"]
    assert (tmp_path / "name").read_bytes() == b"old"


def test_the_root_may_be_a_link_and_the_models_folder_may_not(
    store: Store, publish: Publish, outside: Path, tmp_path: Path
) -> None:
    publish()
    (tmp_path / "link").symlink_to(store.folder.parent)
    assert Store(tmp_path / "link", "tiny").verify(1)
    (store.folder.parent / "other").symlink_to(outside)
    other = Store(store.folder.parent, "other")
    for use in (other.versions, other.aliases, lambda: other.record("run", None, "a test")):
        with pytest.raises(StoreError, match="symbolic link, which is not followed"):
            use()
    assert _untouched(outside)


@pytest.mark.parametrize("name", ["history.jsonl", "aliases.json", ".lock"])
def test_a_writer_never_writes_through_a_link_in_the_store(
    name: str, store: Store, publish: Publish, outside: Path
) -> None:
    publish()
    (store.folder / name).unlink(missing_ok=True)
    (store.folder / name).symlink_to(outside / "file")
    with pytest.raises(StoreError, match=f"{name} is not a regular file but a symbolic link"):
        store.move_alias(CHAMPION, 1, expected=None, event="promote", reason="a test")
    assert _untouched(outside)


@pytest.mark.parametrize("name", ["model.npz", "golden.npz", "manifest.json"])
def test_a_link_among_a_versions_files_rejects_the_version(
    name: str, store: Store, publish: Publish, tmp_path: Path
) -> None:
    publish()
    path = store.path(1) / name
    path.rename(tmp_path / name)
    path.symlink_to(tmp_path / name)
    with pytest.raises(CorruptVersion, match=f"{name} is not a regular file but a symbolic link"):
        store.load(1)


def test_a_version_that_is_a_link_does_not_exist(
    store: Store, publish: Publish, tmp_path: Path
) -> None:
    publish()
    publish()
    store.path(1).rename(tmp_path / "moved")
    store.path(1).symlink_to(tmp_path / "moved")
    assert store.versions() == [2]
    with pytest.raises(VersionNotFound):
        store.load(1)
    assert publish().version == 3
    assert store.prune(keep=1) == [2]
    assert (tmp_path / "moved" / "manifest.json").exists()
