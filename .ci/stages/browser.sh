# The demo in a browser: Debian's Chromium, and Gradio in an environment on top of that of `tests`.
install_chromium() {
  command -v chromium >/dev/null && command -v chromedriver >/dev/null && return
  export DEBIAN_FRONTEND=noninteractive
  for _ in 1 2 3; do
    apt-get update -qq || true
    apt-get install -y -qq --no-install-recommends chromium chromium-driver && return
    sleep 5
  done
  echo "chromium and chromium-driver could not be installed: the tests of this stage fail." >&2
}

install_chromium
rm -rf .venv-browser
python -m venv .venv-browser
home() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
home "$PWD/.venv/bin/python" > "$(home .venv-browser/bin/python)/tests.pth"
.venv-browser/bin/pip install --quiet "gradio==6.31.0" "selenium==4.51.0"
# With -P the installed library is tested, not the checkout.
HF_TOKEN_COMPRESS_BROWSER_REQUIRED=1 .venv-browser/bin/python -P -m pytest tests/app -q
