"""Adapters to other programs; each is imported by its program alone."""
