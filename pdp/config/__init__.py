"""The settings: what they are, where they are read from, and what they must not say together."""
