"""Trainers and losses on a compressed model."""
