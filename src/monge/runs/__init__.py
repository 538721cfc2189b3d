"""Runs: from a specification to a folder of results, and back."""
