"""How sessions begin, change and end: requests, approvals, narrowing, and the events for the record."""
