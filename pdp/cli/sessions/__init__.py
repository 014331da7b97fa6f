"""Commands of gateways and approvers: `pdp session` and `pdp authorize`."""
