"""Samples: where questions about images and videos come from, and how they are asked."""
