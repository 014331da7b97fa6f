"""Several worker processes behind one port: their number, their cores, and their supervisor.

Nothing here imports gRPC, which must not be loaded before the workers start.
"""
