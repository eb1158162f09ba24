"""`python -m mlpserve_model` is the command mlpserve-models."""

import sys

from mlpserve_model.cli import main

if __name__ == "__main__":
    sys.exit(main())
