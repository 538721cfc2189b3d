"""The one training loop: it knows no model family, only a network and a loss of it."""
