"""Messages: what tells receivers outside that something waits for a person, or what became of it."""
