"""Run `python -m mlpserve_cli`."""

import sys

from mlpserve_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
