"""mlpserve: the trainer."""
