"""How sessions come to be, change and end: requests, approvals, narrowing, expiry, and what the record is told."""
