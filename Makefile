PYTHON ?= .venv/bin/python

.PHONY: check style types test matrix families messages lab notebooks site preview

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

families:  ## write the table of model families into docs/families.md
	$(PYTHON) tests/support/family_table.py

messages:  ## bring the list of messages in docs/troubleshooting.md up to date
	$(PYTHON) tests/support/message_page.py

lab:
	$(PYTHON) -m pytest lab -n 2 --dist loadfile

notebooks:  ## run them and store what they print and draw
	$(PYTHON) notebooks/execute.py

site:  ## build the documentation site into build/site and check its links, in .venv-docs
	bash .ci/run site

preview:  ## serve it on this machine and follow changes
	.venv-docs/bin/mkdocs serve
