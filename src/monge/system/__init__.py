"""The operating system side: files, locks, processes, progress, and the user's own code."""
