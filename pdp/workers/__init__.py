"""Several worker processes behind one port: how many, where, and who replaces one that has ended.

Nothing here imports gRPC: it must not be there before the workers are.
"""
