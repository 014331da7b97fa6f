"""Commands of those who write policies."""
