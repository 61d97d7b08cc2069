"""Launches and synchronisations of compressed calls, counted without a GPU."""
