# Sourced by the scripts beside it: goes to the repository's root and makes .venv there what the lock says.
# Safe to run twice and after an interruption: the stamp is written last. PYTHON names another interpreter.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# On a few shared cores, more than one thread makes small tensors many times slower.
export OMP_NUM_THREADS=1

find_python() {
    local candidate candidates=(python3.11 python3.12 python3.13 python3)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "set-up: ${PYTHON:-python3.11 or newer} was not found, is older than 3.11, or lacks venv; install it or set PYTHON" >&2
    return 1
}

install_if_changed() {
    local stamp=.venv/hgscale-installed wanted python
    wanted=$(cat docker/requirements.lock pyproject.toml | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if [ ! -x .venv/bin/pip ]; then
        python=$(find_python)
        echo "set-up: making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
    fi
    rm -f "$stamp"
    echo "set-up: installing docker/requirements.lock (minutes the first time)"
    .venv/bin/pip install -q --disable-pip-version-check -r docker/requirements.lock
    echo "set-up: installing hgscale"
    .venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
    echo "$wanted" >"$stamp"
}

install_if_changed
# After the search for a Python, which must not find the one in .venv. DeepSpeed looks for ninja on the PATH.
export PATH="$PWD/.venv/bin:$PATH"
echo "set-up: ready"
