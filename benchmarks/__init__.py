"""Measurements of the PDP, beside a control."""
