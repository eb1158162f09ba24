"""Writes the reference part of docs/api.md from the docstrings: run it after changing one."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlpserve_client
from mlpserve_client import testing

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
MARKER = "<!-- From here on written by tests/client/render_api.py. -->\n"
SECTION = re.compile(r"(Args|Attributes|Raises|Returns):$")
ENTRY = re.compile(r" {4}(\w[\w, ]*): (.*)")


def reference() -> str:
    """Render every public name."""
    names = mlpserve_client.__all__
    errors = [name for name in names if name.endswith("Error")]
    clients = ["Client", "AsyncClient"]
    others = [name for name in names if name not in (*clients, *errors)]
    chapters = {
        "Clients": [getattr(mlpserve_client, name) for name in clients],
        "Settings and results": [getattr(mlpserve_client, name) for name in others],
        "Errors": sorted((getattr(mlpserve_client, name) for name in errors), key=depth),
        "Testing: `mlpserve_client.testing`": [
            getattr(testing, name) for name in reversed(testing.__all__)
        ],
    }
    blocks = (
        f"## {title}\n\n" + "\n".join(map(entry, things)) for title, things in chapters.items()
    )
    return "\n".join(blocks)


def depth(error: type) -> tuple[int, str]:
    """Sort the tree's root first."""
    return len(error.__mro__), error.__name__


def entry(thing: Any) -> str:
    """Render a class with its methods, or a function."""
    error = inspect.isclass(thing) and issubclass(thing, BaseException)
    signature = f"({thing.__mro__[1].__name__})" if error else signature_of(thing)
    parts = [f"### `{thing.__name__}{signature}`\n", text_of(thing)]
    parts += [
        f"#### `{thing.__name__}.{name}{signature_of(member)}`\n\n{text_of(member)}"
        for name, member in vars(thing).items()
        if not name.startswith("_") and inspect.isfunction(member)
    ]
    return "\n".join(parts)


def signature_of(thing: Any) -> str:
    """The arguments' names and defaults; the docstring says the rest."""
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for name, parameter in inspect.signature(thing).parameters.items()
        if name != "self"
    ]
    return str(inspect.Signature(parameters))


def text_of(thing: Any) -> str:
    """A docstring as Markdown: the entries of its sections become lists."""
    return "\n".join(markdown((inspect.getdoc(thing) or "").splitlines())) + "\n"


def markdown(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if SECTION.fullmatch(line):
            yield f"{line}\n"
        elif found := ENTRY.fullmatch(line):
            yield f"- `{found[1]}`: {found[2]}"
        elif line.startswith("        "):
            yield f"  {line.strip()}"
        else:
            yield line


def rendered() -> str:
    """The whole document, with its reference part as it should be."""
    guide, _, _ = DOCUMENT.read_text().partition(MARKER)
    return guide + MARKER + "\n" + reference()


if __name__ == "__main__":
    DOCUMENT.write_text(rendered())
