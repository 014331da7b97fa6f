"""Assembly: the only house that constructs the parts and connects them."""
