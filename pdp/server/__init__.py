"""The gRPC server: the way in for everybody who is not in this process."""
