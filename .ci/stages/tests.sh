# The README's test command, in a fresh virtual environment, on the built wheel.
rm -rf .venv build ./*.egg-info

# The one fenced line under the README's heading "Test".
command=$(
  awk '/^#+ Test$/ {found = 1} found && /^```bash$/ {inside = 1; next} inside && /^```$/ {exit} inside' README.md
)
[ "$(printf '%s\n' "$command" | wc -l)" -eq 1 ] && [ -n "$command" ]
echo "+ $command"
bash -euo pipefail -c "$command"

echo "+ these tests ran against the installed wheel"
cd tests
../.venv/bin/python -c '
import hf_token_compress, pathlib, sysconfig
home = pathlib.Path(hf_token_compress.__file__).resolve()
assert home.is_relative_to(pathlib.Path(sysconfig.get_path("purelib")).resolve()), home
'
