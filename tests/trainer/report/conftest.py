"""Reports with their figures."""

import pytest


@pytest.fixture(autouse=True)
def _no_figures() -> None:
    """Draw them: these tests look at them."""
