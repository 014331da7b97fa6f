"""gRPC over HTTP/2 without I/O: bytes in, calls out; answers in, bytes out."""
