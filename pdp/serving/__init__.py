"""What every listener shares: lanes of threads, the boundary around handlers, TLS, and refusals."""
