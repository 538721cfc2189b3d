"""Drawing samples, and the way back: a `Generator`, which needs no folder."""
