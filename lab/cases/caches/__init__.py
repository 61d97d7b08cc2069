"""What a cache remembers of a compressed prompt."""
