"""`python -m mlpserve_server` is `mlpserve-server`."""

import sys

from mlpserve_server.cli import main

sys.exit(main())
