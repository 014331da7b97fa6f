"""What loads, and is probably not what its author meant."""
