"""Latents of the training data: encoded once, then drawn in batches."""
