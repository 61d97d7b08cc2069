"""Training: of mappers, and of the tiny models that are shipped with the library."""
