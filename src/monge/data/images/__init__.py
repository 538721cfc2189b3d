"""Reads, checks and decodes images once."""
