#!/usr/bin/env bash
# Make a virtual environment with everything the project needs, or complete one.
#
#   tools/make_venv.sh FOLDER REQUIREMENT...
#
# The requirements are those of PyTorch and torchvision. PYTHON names the Python to use; without it
# the first one of version 3.10 or newer is taken.
set -euo pipefail

venv=${1:?usage: tools/make_venv.sh FOLDER REQUIREMENT...}
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'make_venv: %s\n' "$1" >&2
    exit 1
}

# A command that is found need not run (version managers leave such), so each is tried.
is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON is not a Python of version 3.10 or newer."
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 python3.14 python; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python of version 3.10 or newer found. Install one, or name it: make PYTHON=/path/to/python"
}

# pip is silent while it unpacks gigabytes; a line now and then tells that work goes on.
announce() {
    local what=$1 started=$SECONDS status=0
    shift
    printf '== %s\n' "$what"
    (
        trap 'kill "$pause" 2>/dev/null; exit' TERM
        while true; do
            sleep 30 &
            pause=$!
            wait "$pause"
            printf '   ... %s: %d s\n' "$what" "$((SECONDS - started))"
        done
    ) &
    local ticker=$!
    "$@" || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    return "$status"
}

# An interrupted run may leave an environment without pip, which is made again.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        fail "$python lacks the modules venv and ensurepip. On Debian and Ubuntu the package python3-venv has them."
    printf '== Making %s with %s\n' "$venv" "$("$python" --version)"
    "$python" -m venv "$venv"
fi

pip=("$venv/bin/python" -m pip --disable-pip-version-check)
announce "Updating pip" "${pip[@]}" install --quiet --upgrade pip
announce "Installing $* (some gigabytes the first time)" "${pip[@]}" install "$@"
announce "Installing Detectron2" "$venv/bin/python" tools/install_detectron2.py
announce "Installing this project" "${pip[@]}" install --editable '.[dev,docs]'
