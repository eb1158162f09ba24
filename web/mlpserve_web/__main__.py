"""Run `python -m mlpserve_web`."""

import sys

from mlpserve_web.cli import main

if __name__ == "__main__":
    sys.exit(main())
