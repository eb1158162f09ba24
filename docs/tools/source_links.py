"""A hook of MkDocs: links to files outside docs/ become plain text on the site.

In a checkout they lead to the file. The site holds the documents and the notebook alone, so there
the name of another file has to do. A link to a file that does not exist fails the build.
"""

import logging
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)")
NOTEBOOK = Path(__file__).parents[2] / "examples" / "from_scratch.ipynb"
log = logging.getLogger("mkdocs.hooks.source_links")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Replace every link that leaves docs/ by its text; MkDocs calls this for each page."""
    docs = Path(config.docs_dir).resolve()
    folder = (docs / page.file.src_uri).parent

    def text_or_link(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = (folder / target).resolve()
        if path.is_relative_to(docs):
            return link[0]
        if path == NOTEBOOK:
            return f"[{text}]({NOTEBOOK.stem}.md)"
        if not path.exists():
            log.warning("%s: the link to %s leads to no file", page.file.src_uri, target)
        return text

    return LINK.sub(text_or_link, markdown)
