"""Who reports: which sources people found to be right, and which stand out. Pure functions.

A source is a token. Ten tokens that agree may be one caller's, so what speaks for a source is what
a person accepted of it, and what speaks against it is compared with all that the others report.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from mlpserve_model.store.evidence.corrections import OVER_QUOTA, REVOKED, Correction
from mlpserve_model.store.evidence.reviews import ACCEPTED, REJECTED
from mlpserve_model.store.evidence.statistics import binomial_tail, hypergeometric_tail

__all__ = ["proven", "suspects"]

PROOF = 0.05  # of five corrections all were right, or of eight seven
# The probability that any of all honest sources becomes a suspect.
FALSE_ALARM = 0.01


def proven(found: Iterable[Correction]) -> frozenset[str]:
    """Return the sources of which people accepted more corrections than they rejected.

    By an exact binomial test of what was reviewed. Callers without a token are never proven: they
    may be anybody.
    """
    verdicts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for correction in found:
        verdicts[correction.report.source][correction.state] += 1
    return frozenset(
        source
        for source, of in verdicts.items()
        if source and binomial_tail(of[ACCEPTED], of[ACCEPTED] + of[REJECTED], 0.5) < PROOF
    )


def suspects(found: Iterable[Correction], audited: Iterable[Correction] = ()) -> dict[str, str]:
    """Return the sources that stand out against all others, each with the reason.

    Each is compared with the others by two exact tests, Fisher's (1935): whether more of what it
    reports is contradicted, by a review or by what others report of the same row, audited or not;
    and whether more of its corrections are of answers that the version was sure of. Mistakes are
    mostly unsure answers; who makes mistakes up takes right ones. A majority of sources that
    report the same way cannot be told from honest ones.

    Args:
        found: Corrections in their states.
        audited: What was reported of audited answers.

    """
    counted = [c for c in found if c.state not in (REVOKED, OVER_QUOTA)]
    tests = {
        "contradicted by reviews or by other sources": list(_checked([*counted, *audited])),
        "of answers that the version was surer of than of most": list(_by_confidence(counted)),
    }
    sources = {c.report.source for c in counted}
    level = FALSE_ALARM / (len(tests) * max(len(sources), 1))
    return {
        source: f"{share} of its reports are {words}"
        for words, marks in tests.items()
        for source, share in _outstanding(marks, level)
        if source in sources
    }


@dataclass(frozen=True, slots=True)
class _Mark:
    """One report of a source, and whether it has what a test looks for."""

    source: str
    is_marked: bool


def _outstanding(marks: Sequence[_Mark], level: float) -> Iterator[tuple[str, str]]:
    """Give the sources with more marks than the others, and how many of how many."""
    all_of = Counter(mark.source for mark in marks)
    marked_of = Counter(mark.source for mark in marks if mark.is_marked)
    for source, marked in marked_of.items():
        of = all_of[source]
        if hypergeometric_tail(marked, of, marked_of.total(), len(marks)) < level:
            yield source, f"{marked} of {of}"


def _checked(claims: Sequence[Correction]) -> Iterator[_Mark]:
    """Mark what is contradicted, of all that anybody else has said something about."""
    said: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for claim in claims:
        if claim.state != REJECTED:
            said[claim.row][claim.truth].add(claim.report.source)
    # One source may report a row often; it counts once.
    for claim in {(c.report.source, c.row, c.truth): c for c in claims}.values():
        source = claim.report.source
        if claim.state in (ACCEPTED, REJECTED):
            yield _Mark(source, claim.state == REJECTED)
            continue
        others = {truth for truth, by in said[claim.row].items() if by - {source}}
        if others:
            yield _Mark(source, claim.truth not in others)


def _by_confidence(found: Sequence[Correction]) -> Iterator[_Mark]:
    """Mark corrections of answers with more than the median confidence."""
    if found:
        middle = median(c.report.confidence for c in found)
        yield from (_Mark(c.report.source, c.report.confidence > middle) for c in found)
