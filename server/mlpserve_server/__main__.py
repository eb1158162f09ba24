"""`python -m mlpserve_server` is the command mlpserve-server."""

import sys

from mlpserve_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
