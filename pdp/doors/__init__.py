"""Doors: processes and adapters by which gateways and agent frameworks ask the PDP before every tool call."""
