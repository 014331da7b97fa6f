"""`pdp signals`: the receiver of signals, and what a person says to those that are held."""
