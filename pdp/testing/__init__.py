"""Published helpers for the tests of those who build on the PDP."""
