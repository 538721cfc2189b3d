"""Training objectives: what a network is asked to be."""
