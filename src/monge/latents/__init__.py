"""Latents: encoded once, then drawn in batches."""
