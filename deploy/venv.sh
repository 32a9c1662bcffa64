#!/bin/sh
# Run Python of this checkout's virtual environment, which is made or renewed first when needed:
#
#     deploy/venv.sh GROUP PYTHON-ARGUMENT...
#
# GROUP names requirements/GROUP.txt. Behind `./kite` and every verb of the Makefile. This file is
# the fast path: with everything installed it costs a comparison of two files and an exec. The slow
# path, with the lock and the installation, is deploy/make_venv.py.
#
# KITE_PYTHON picks the interpreter to build with (default: the first of the usual names that is at
# least 3.11). Works from any directory: relative paths in the arguments stay the caller's.

set -u

root=$(CDPATH='' cd -P -- "${0%/*}/.." && pwd -P) || exit 1
group=$1
shift
locked=$root/requirements/$group.txt

# A checkout that is not ours to write to gets its environment in the user's own place.
own=${KITE_HOME:-${HOME:-/nonexistent}/.local/share/alphakite}/venv

fresh() { # fresh VENV: the interpreter works and exactly this lock file was installed
    [ -x "$1/bin/python" ] && cmp -s "$locked" "$1/.installed-$group.txt"
}

is_python() { # is_python COMMAND: it starts and is new enough
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    if [ -n "${KITE_PYTHON:-}" ]; then
        is_python "$KITE_PYTHON" && command -v -- "$KITE_PYTHON" && return
        echo "kite: KITE_PYTHON=$KITE_PYTHON is not a Python 3.11 or newer" >&2
        return 1
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        is_python "$candidate" && command -v -- "$candidate" && return
    done
    echo "kite: found no Python 3.11 or newer; install it (for example: apt install python3" \
        "python3-venv, or brew install python) or name it in KITE_PYTHON" >&2
    return 1
}

if fresh "$root/.venv"; then
    venv=$root/.venv
elif fresh "$own"; then
    venv=$own
else
    python=$(find_python) || exit 1
    venv=$("$python" -I "$root/deploy/make_venv.py" "$group" "$root/.venv" "$own") || exit $?
fi

# Imports are file paths from the root. PYTHONSAFEPATH keeps the caller's directory out of them.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1
exec "$venv/bin/python" "$@"
