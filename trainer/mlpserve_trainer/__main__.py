"""The command mlpserve-trainer, which says in one line what is not installed."""

import sys
from collections.abc import Sequence

from mlpserve_trainer.errors import missing_package

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code, 1 if a package of the extra is not installed."""
    try:
        from mlpserve_trainer.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mlpserve"):
            raise
        print(f"mlpserve-trainer: {missing_package(error)}", file=sys.stderr)
        return 1
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
