"""A model against held-out data: metrics, baselines, densities, quality by steps."""
