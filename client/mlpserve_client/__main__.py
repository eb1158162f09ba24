"""`python -m mlpserve_client` is mlpserve-client."""

import sys

from mlpserve_client._cli import main

sys.exit(main())
