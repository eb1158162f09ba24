"""`python -m mlpserve_trainer` is the command mlpserve-trainer."""

import sys

from mlpserve_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
