#!/usr/bin/env bash
# Tests the feature `cloud` against moto, an S3 server of PyPI, on loopback. With VJEPA_S3_ENDPOINT set, against that server.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${VJEPA_S3_ENDPOINT:-}" ]; then
    folder=$(mktemp -d)
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet -r tests/cloud/requirements.txt
    "$folder/venv/bin/moto_server" --host 127.0.0.1 --port 0 >"$folder/log" 2>&1 &
    server=$!
    trap 'kill "$server"; rm -rf "$folder"' EXIT
    for _ in $(seq 100); do
        VJEPA_S3_ENDPOINT=$(sed -n 's/.*Running on \(http:[^ ]*\).*/\1/p' "$folder/log" | head -n 1)
        [ -n "$VJEPA_S3_ENDPOINT" ] && break
        sleep 0.1
    done
    export VJEPA_S3_ENDPOINT
fi
cargo test --locked -p vjepa-data --features cloud "$@"
