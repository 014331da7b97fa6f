"""Generated from `proto/pdp/v1`; never edited."""
