"""`pdp audit`: what can be asked of the record."""
