"""`pdp tools`: the catalogue of a policy folder."""
