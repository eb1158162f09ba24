"""The gRPC server of mlpserve: follows the store and answers predictions."""
