"""Columns of a table: what they are, and their numbers and back."""
