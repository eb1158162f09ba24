"""`python -m mlpserve_client` is the command mlpserve-client."""

import sys

from mlpserve_client._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
