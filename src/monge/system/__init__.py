"""What every room stands on: files, locks, processes, progress, and code of the user's own."""
