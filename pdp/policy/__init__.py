"""Policies: bundles, the catalogue of tools, typing of arguments, and the Cedar engine."""
