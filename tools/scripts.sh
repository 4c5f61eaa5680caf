# shellcheck shell=bash
# Sourced by the scripts in the repository root with their name and arguments.
# PYTHON is the interpreter: by default .venv's, or the first on PATH.

set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

if [[ -z ${PYTHON:-} ]]; then
    PYTHON=$root/.venv/bin/python
    [[ -x $PYTHON ]] || PYTHON=python
fi

export PYTHON PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -c 'import sys; from cat_seg.cli.scripts import main; sys.exit(main())' "$@"
