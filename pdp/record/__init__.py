"""Keep the record: what was decided and done, in files that only grow."""

from pdp.record.log import DecisionLog, read_log

__all__ = ["DecisionLog", "read_log"]
