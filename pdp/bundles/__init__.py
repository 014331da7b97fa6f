"""Which bundle runs, and why: where bundles come from, who signed them, and how one becomes active."""
