"""Columns of a table: their roles, and their conversion to coordinates and back."""
