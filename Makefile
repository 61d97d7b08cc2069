PYTHON ?= .venv/bin/python

.PHONY: check style types test matrix lab notebooks

check:  ## what continuous integration does
	bash .ci/run

style:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:
	$(PYTHON) -m mypy -p hf_token_compress

test:
	$(PYTHON) -m pytest tests -n 2 --dist loadfile

matrix:  ## every combination of family, prompt, dtype and attention
	$(PYTHON) -m pytest tests -n 2 --dist loadfile --matrix

lab:
	$(PYTHON) -m pytest lab -n 2 --dist loadfile

notebooks:  ## run them and store what they print and draw
	$(PYTHON) notebooks/execute.py
