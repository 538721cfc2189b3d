"""Two sets of samples against each other, or against a reference."""
