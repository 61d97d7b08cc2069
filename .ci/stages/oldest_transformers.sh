# The core suite with the oldest supported Transformers.
oldest=$(mktemp -d)
trap 'rm -rf "$oldest"' EXIT
.venv/bin/pip install --quiet --no-deps --target "$oldest" transformers==5.19.0
PYTHONPATH="$oldest" .venv/bin/pytest tests -n 2 --dist loadfile -m core -q
