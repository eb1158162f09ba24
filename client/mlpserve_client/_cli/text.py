"""Text that a terminal may be given."""

import sys


def encodable(text: str) -> bool:
    """Return True if standard output can encode the text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Replace control characters, which could move the cursor or rewrite the screen."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
