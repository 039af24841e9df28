#!/usr/bin/env bash
# Runs clients of other makers against the built server; exit code 0 only if all of them were content.
#
#   tests/clients/run.sh            TRAMLINE_BIN=path for another server than target/debug/tramline
#
# Needs python3 with venv, and PyPI the first time; what is installed stays in target/clients.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
server=$(realpath "${TRAMLINE_BIN:-$target/debug/tramline}")
place=$target/clients
readonly AIORTC_VERSION=1.16.0

if ! "$place/bin/python" -c "import aiortc; assert aiortc.__version__ == '$AIORTC_VERSION'" 2>/dev/null; then
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet "aiortc==$AIORTC_VERSION"
fi

log=$place/server.log
# aiortc leaves the loopback interface out.
DISABLE_STUN=true ICE_UDP_MUX_PORT=0 SFU_PORT=0 LOG_FORMAT=json "$server" >"$log" 2>&1 &
child=$!
trap 'kill "$child" 2>/dev/null || true' EXIT
url=
for _ in $(seq 200); do
    url=$(grep -oE 'open http://[^ "]+:[0-9]+' "$log" | head -1 | cut -d' ' -f2) || true
    if [ -n "$url" ]; then break; fi
    sleep 0.1
done
[ -n "$url" ] || { cat "$log" >&2; exit 1; }
"$place/bin/python" tests/clients/aiortc_whip_whep.py "http://127.0.0.1:${url##*:}"
