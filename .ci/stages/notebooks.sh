# Every notebook and example, and the servers and caches that the README's test command leaves out.
.venv/bin/pytest tests/notebooks tests/examples tests/docs/test_serving.py \
  tests/compression/test_special_caches.py --matrix -n 2 --dist loadfile -q
