"""Which bundle runs, and why that one: where bundles come from, who signed them, and how one becomes active."""
