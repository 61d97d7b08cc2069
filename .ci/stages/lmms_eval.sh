# The real lmms-eval, in an environment of its own, because its dependencies are not ours.
rm -rf .venv-lmms
python -m venv .venv-lmms
.venv-lmms/bin/pip install --quiet -c tests/constraints.txt \
  -r tests/integrations/lmms_eval/requirements.txt .
.venv-lmms/bin/pip install --quiet --no-deps lmms-eval==0.7.3
.venv-lmms/bin/pytest tests/integrations/lmms_eval -q
