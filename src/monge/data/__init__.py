"""Where data comes from, and its latents."""
