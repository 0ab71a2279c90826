#!/bin/sh
# Install radtransfer and the pinned packages that it needs at run time into a virtual environment: `install.sh PREFIX`.
# Both images run this, and a test runs it without an image. Hashes come from requirements.lock.
set -eu
prefix=$1
backend=${TORCH_BACKEND:-}

python3 -m venv "$prefix"
"$prefix/bin/python" -m pip install --quiet --no-cache-dir uv
if [ -z "$backend" ]; then
    "$prefix/bin/uv" pip install --quiet --python "$prefix/bin/python" --constraint requirements.lock --verify-hashes .
else
    # another index serves builds of its own, whose hashes the lock does not know
    "$prefix/bin/uv" pip install --quiet --python "$prefix/bin/python" --constraint requirements.lock --no-verify-hashes \
        --torch-backend "$backend" .
fi
"$prefix/bin/radtransfer" --version
