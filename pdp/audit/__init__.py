"""Answer an investigator's questions from the record, through an index that can be deleted at any time."""

from pdp.audit.index import AuditIndex, Progress
from pdp.audit.search import Search

__all__ = ["AuditIndex", "Progress", "Search"]
