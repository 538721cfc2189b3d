"""Verify: how far the samples are from the data in Wasserstein-2, and what is to blame."""
