"""What people say of answers on the page, as reports to the model servers."""

from typing import Any

from numpy.typing import NDArray

from mlpserve_client import AsyncClient
from mlpserve_web.errors import HttpError

__all__ = ["report", "truth"]

# Receipts that are asked for until one is not drawn for the audit.
_MAX_RECEIPTS = 8


async def report(
    client: AsyncClient,
    instance: NDArray[Any],
    version: int,
    class_name: str | None,
    right: bool | None,
) -> bool:
    """Report the truth about the answer to an instance; return False if it was known.

    The instance is classified again, with a receipt. People on a page choose what to speak of, so
    the report must not pass for a drawn one: another receipt is asked for until it is not of the
    audit. Where every answer is audited, the report is of the audit, too.
    """
    answer = await client.predict(instance, version=version, receipt=True)
    for _ in range(_MAX_RECEIPTS - 1):
        if not answer.audit:
            break
        answer = await client.predict(instance, version=version, receipt=True)
    result = await client.report(
        answer.receipt, class_name=class_name, right=right, instance=instance
    )
    return result.recorded > 0


def truth(said: str | None, class_name: str | None) -> tuple[str | None, bool | None]:
    """Return the class and the verdict that a query means; raises HttpError."""
    verdicts = {"right": True, "wrong": False}
    if (said is None) == (class_name is None) or said not in (None, *verdicts):
        raise HttpError(400, "expected class=NAME, or said=right or said=wrong")
    return class_name, None if said is None else verdicts[said]
