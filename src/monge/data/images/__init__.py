"""Images as data: read, checked and decoded once."""
