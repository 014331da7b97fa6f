"""What reads foreign policy text, in a process of its own: text can crash or stall the engine."""
