"""Speed beside the alternatives: interleaved rounds, ratios, the machine's own limit beside."""
