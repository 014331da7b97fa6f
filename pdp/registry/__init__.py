"""How sessions begin, change and end: requests, approvals, narrowing, expiry, and the events for the record."""
