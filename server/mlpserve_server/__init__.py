"""mlpserve: the server."""
