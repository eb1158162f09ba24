"""Text that a terminal may be given."""


def printable(text: str) -> str:
    """Replace control characters, which could move the cursor or rewrite the screen."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
