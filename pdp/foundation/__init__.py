"""The ground floor: files, text, threads and memory for all other houses; nothing here depends on the PDP."""
