"""mlpserve: the model."""
