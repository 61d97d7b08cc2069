"""One compressed model in several threads."""
