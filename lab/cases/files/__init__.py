"""Mapper files, model folders and settings."""
