# The laboratory's tests.
install_osmesa() {
  # What MuJoCo draws with where there is no screen. Where it cannot be installed, the tests that
  # need it say so.
  [[ "$(ldconfig -p)" == *libOSMesa* ]] && return
  export DEBIAN_FRONTEND=noninteractive
  for _ in 1 2 3; do
    apt-get update -qq || true
    apt-get install -y -qq --no-install-recommends libosmesa6 && return
    sleep 5
  done
  echo "libosmesa6 could not be installed." >&2
}

install_osmesa
.venv/bin/pip install --quiet -r lab/requirements.txt
.venv/bin/pip install --quiet --no-deps -r lab/testbed/parts.txt
.venv/bin/python -m pytest lab -n 2 --dist loadfile -q
