"""The ground floor: files, text, threads and memory for all other houses; nothing here knows what a PDP is."""
