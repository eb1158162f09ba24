"""The wire contract of mlpserve: protobuf messages and gRPC stubs, generated from proto/."""
