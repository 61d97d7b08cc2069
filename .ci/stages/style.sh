# Style and types.
.venv/bin/pip install --quiet "ruff==0.17.6" "mypy==2.4.1"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
cd tests # where the installed package is found, and not the checkout's
../.venv/bin/mypy --config-file ../pyproject.toml -p hf_token_compress
