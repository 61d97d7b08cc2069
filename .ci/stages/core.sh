# The demo and the core suite on the oldest supported Python, or on $PYTHON, or of the wheel $PACKAGE.
python=${PYTHON:-python3.10}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Where pyenv manages several Pythons, it runs the one that this names.
PYENV_VERSION=${python#python} "$python" -m venv "$folder/venv"
"$folder/venv/bin/python" --version
"$folder/venv/bin/pip" install --quiet -c tests/constraints.txt "${PACKAGE:-.}[test]"
"$folder/venv/bin/hf-token-compress" demo --output "$folder/demo"
"$folder/venv/bin/pytest" tests -n 2 --dist loadfile -m core -q
