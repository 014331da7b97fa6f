"""Generated from `proto/pdp/broker/v1`; never edited."""
