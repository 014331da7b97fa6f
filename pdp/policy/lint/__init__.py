"""Lints: find policies that load, but are probably not what their author meant."""
