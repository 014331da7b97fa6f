"""Credentials that leave the broker, for one session each, and their end."""
