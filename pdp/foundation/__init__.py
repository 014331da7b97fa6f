"""The ground floor: files, text, threads and memory, for everything above; nothing here knows what a PDP is."""
