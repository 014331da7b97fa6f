"""Show what the PDP does: a span and a log record for each decision, a span for each refused request, and metrics.

The trace is a view and may lose spans while the receiver is away; the decision log is the record.
"""
