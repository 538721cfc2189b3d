"""Trains a run from its specification."""
