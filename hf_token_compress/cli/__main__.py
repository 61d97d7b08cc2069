"""`python -m hf_token_compress.cli`, for where the script is not on the path."""

from . import app

app()
