"""Keep the record of decisions and events, in files that only grow and show any change."""

from pdp.record.chain import Rotation
from pdp.record.keys import SigningKey
from pdp.record.log import DecisionLog, RecordStatus
from pdp.record.reader import Located, read_records

__all__ = ["DecisionLog", "Located", "RecordStatus", "Rotation", "SigningKey", "read_records"]
