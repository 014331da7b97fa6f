"""Sessions: their life cycle, and the stores that keep them."""
