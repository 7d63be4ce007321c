#!/usr/bin/env bash
# Runs a command with VJEPA_S3_ENDPOINT naming moto, an S3 server of PyPI, on loopback; without a command, the tests of the feature
# `cloud` alone. With VJEPA_S3_ENDPOINT set, against that server. The server is installed once, in target/cloud.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -eq 0 ]; then
    set -- env CARGO_TARGET_DIR=target/alone cargo test --locked -p vjepa-data --features cloud
fi
if [ -z "${VJEPA_S3_ENDPOINT:-}" ]; then
    venv=target/cloud
    if ! cmp -s tests/cloud/requirements.txt "$venv/installed"; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet -r tests/cloud/requirements.txt
        cp tests/cloud/requirements.txt "$venv/installed"
    fi
    log=$(mktemp)
    "$venv/bin/python" -c 'import sys; from moto.server import main; main()' --host 127.0.0.1 --port 0 >"$log" 2>&1 &
    server=$!
    trap 'kill "$server" 2>/dev/null || true; rm -f "$log"' EXIT
    for _ in $(seq 300); do
        VJEPA_S3_ENDPOINT=$(sed -n 's/.*Running on \(http:[^ ]*\).*/\1/p' "$log" | head -n 1)
        [ -z "$VJEPA_S3_ENDPOINT" ] || break
        sleep 0.1
    done
    if [ -z "$VJEPA_S3_ENDPOINT" ]; then
        echo "the S3 server has not started:" >&2
        cat "$log" >&2
        exit 1
    fi
    export VJEPA_S3_ENDPOINT
fi
"$@"
