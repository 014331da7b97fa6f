"""Signals of others that authority must end: received, judged by their signatures, and carried out by revoking."""
