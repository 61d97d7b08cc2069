# The documentation site, with warnings as errors, and its links, anchors and images.
rm -rf .venv-docs
python -m venv .venv-docs
# The extra without the package: the reference is read from the sources, so torch is not needed.
extra=$(python -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file)["project"]["optional-dependencies"]["docs"]))
')
.venv-docs/bin/pip install --quiet -c tests/constraints.txt -r <(echo "$extra")
NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
.venv-docs/bin/python docs/site/check.py build/site
