# The source distribution and the wheel as they are published, in dist/, and the forms that GitHub reads.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "build==1.6.1" "check-jsonschema==0.39.0" "twine==7.0.0"

# Of committed files only.
mkdir "$folder/source"
git archive HEAD | tar --extract --directory "$folder/source"
address=$(sed -n 's/^Repository = "\(.*\)"$/\1/p' pyproject.toml)
[ -z "$address" ] || python .ci/absolute_links.py "$folder/source/README.md" "$address" "${GITHUB_REF_NAME:-main}"

rm -rf dist
# The wheel is built from the source distribution.
"$folder/venv/bin/python" -m build --quiet --outdir dist "$folder/source"
"$folder/venv/bin/twine" check --strict dist/*

check() { "$folder/venv/bin/check-jsonschema" --builtin-schema "vendor.$1" "${@:2}"; }
check github-workflows .github/workflows/*.yml
check github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
check github-issue-config .github/ISSUE_TEMPLATE/config.yml
check citation-file-format CITATION.cff
