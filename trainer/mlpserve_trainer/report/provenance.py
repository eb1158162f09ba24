"""What a version has of its callers' corrections, for report and model card."""

from mlpserve_model import Draft

__all__ = ["corrections_in_words"]


def corrections_in_words(draft: Draft) -> str:
    """Return a sentence about the corrections that a version was trained on."""
    facts = draft.extra.get("corrections")
    if not isinstance(facts, dict):
        return "none"
    text = f"{facts['rows']} rows of {len(facts['sources'])} sources"
    if "refused" in facts:
        text = "refused, since they made the holdout worse"
    left_out = ", ".join(f"{count} {why}" for why, count in facts["left_out"].items() if count)
    more = f"; not used: {left_out}" if left_out else ""
    return f"{text}; {facts['live_holdout']} rows in the live holdout{more}"
