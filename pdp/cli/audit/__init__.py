"""`pdp audit`: questions about the record."""
