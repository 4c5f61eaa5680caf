#!/usr/bin/env bash
# Install a requirements file into a virtual environment, which is created or repaired first.
#   [PYTHON=python3.14] tools/set_up.sh VENV REQUIREMENTS [LOWER]
# Packages that VENV lacks come from LOWER, another virtual environment.
# It may be interrupted at any point: the next run resumes from there.
set -euo pipefail

venv=$1
requirements=$2
lower=${3:-}
python=$venv/bin/python

fail() {
    echo "error: $1" >&2
    exit 2
}

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

base_python() {
    local candidate candidates=(python3 python3.{14,13,12,11,10})
    if [ -n "${PYTHON:-}" ]; then
        candidates=("$PYTHON")
    fi
    for candidate in "${candidates[@]}"; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "${candidates[0]} is not Python 3.10 to 3.14: choose one with make PYTHON=/path/to/python"
}

if ! "$python" -c '' 2>/dev/null; then
    base=$(base_python)
    echo "Creating $venv with $("$base" --version)"
    "$base" -m venv --clear --without-pip "$venv" || fail "$base could not create $venv"
fi
fits "$python" || fail "$venv has $("$python" --version), not 3.10 to 3.14: remove it and run again"

if [ -n "$lower" ]; then
    "$python" - "$("$lower/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" <<'END'
import pathlib, sys, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "lower.pth").write_text(sys.argv[1] + "\n")
END
fi

# A package's metadata is installed last, so a pip without metadata is incomplete.
if ! "$python" -c 'from importlib.metadata import version; version("pip")' 2>/dev/null; then
    "$python" -c 'import ensurepip' 2>/dev/null ||
        fail "Python's ensurepip is missing: on Debian and Ubuntu, apt install python3-venv"
    "$python" -m ensurepip --default-pip >/dev/null || fail "pip could not be installed into $venv"
fi

# Of pip's many lines, show only those about large files, as a sign of progress.
echo "Installing $requirements into $venv"
"$python" -m pip install --disable-pip-version-check --no-input -r "$requirements" |
    while read -r line; do
        case $line in
            "Downloading "*[0-9][0-9].[0-9]" MB)"*) echo "  $line" ;;
            "Installing collected packages"*) echo "  Unpacking" ;;
        esac
    done || fail "$requirements could not be installed: see pip's error above"
