"""Ways to call a compressed model."""
