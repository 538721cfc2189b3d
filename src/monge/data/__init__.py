"""Reads sources into training and held-out examples."""
