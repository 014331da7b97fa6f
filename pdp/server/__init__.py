"""The gRPC server: how every other process calls the PDP."""
