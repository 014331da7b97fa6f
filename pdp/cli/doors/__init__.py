"""Commands that run doors."""
