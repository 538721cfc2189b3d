"""From a specification to a trained run."""
