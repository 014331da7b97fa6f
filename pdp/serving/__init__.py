"""What every listener shares: lanes of threads, the boundary around handlers, TLS, refusals, and the transports."""
