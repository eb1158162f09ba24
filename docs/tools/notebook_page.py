"""A hook of MkDocs: the notebook in examples/ as a page, with its formulas as MathML.

Browsers draw MathML by themselves, so the site fetches no script for formulas.
"""

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

NOTEBOOK = Path(__file__).parents[2] / "examples" / "from_scratch.ipynb"
FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+)\$", re.DOTALL)
# Code, in which a dollar is a dollar.
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def on_files(files: Any, *, config: Any) -> Any:
    """Add the page and its pictures; MkDocs calls this once it has listed the documents."""
    body, resources = MarkdownExporter().from_filename(str(NOTEBOOK))
    files.append(File.generated(config, f"{NOTEBOOK.stem}.md", content=_page(body)))
    for name, picture in resources["outputs"].items():
        files.append(File.generated(config, name, content=picture))
    return files


def _page(body: str) -> str:
    """Return the exporter's Markdown as the site's: formulas as MathML."""
    parts = CODE.split(body)
    parts[::2] = [FORMULA.sub(_mathml, part) for part in parts[::2]]
    return "".join(parts)


def _mathml(formula: re.Match[str]) -> str:
    if formula["block"]:
        return f"<div>{convert(formula['block'], display='block')}</div>"
    # In a span, since Markdown takes a line that begins with <math> for a block.
    return f"<span>{convert(formula['inline'])}</span>"
