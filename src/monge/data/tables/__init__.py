"""Reads tables, chooses their columns, and converts rows to numbers."""
