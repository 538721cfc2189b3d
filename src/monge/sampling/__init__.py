"""Samples, encodes and decodes with a `Generator`, which needs no folder."""
