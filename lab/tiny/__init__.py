"""Recipes of the tiny models that come with the library: drawings, training and evaluation."""
