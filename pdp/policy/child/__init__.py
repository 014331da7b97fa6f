"""Reads untrusted policy text in a separate process, since text can crash or stall the engine."""
