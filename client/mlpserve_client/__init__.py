"""mlpserve: the client."""
