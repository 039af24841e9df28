#!/usr/bin/env bash
# One command, one picture: where the time of a loaded server goes.
#
#   scripts/flamegraph.sh one-to-many                    flamegraph-one-to-many.svg in the build directory
#   scripts/flamegraph.sh one-to-many -n 200 --gro       further words go to tramline-perf, see perf/README.md
#   scripts/flamegraph.sh floor                          the load generator itself, as there is no server
#
#   SECONDS_RECORDED=10 OUT=picture.svg scripts/flamegraph.sh ...
#
# Builds server and load generator like a release with frame pointers (profile `profiling`), starts the load and samples
# the server with perf by the CPU clock, which virtual machines have too. perf must be allowed to look into the kernel:
# run it as root, or lower kernel.perf_event_paranoid and kernel.kptr_restrict. Installs linux-perf (Debian) and inferno
# (cargo) where they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
. scripts/need.sh

readonly INFERNO_VERSION=0.12.8
# Not a round number, so that sampling does not keep step with the load.
readonly SAMPLES_PER_SECOND=999
readonly SECONDS_RECORDED=${SECONDS_RECORDED:-8}
# Start, handshakes and the first seconds of media are not what the picture is about.
readonly WARM_UP=5
# Longest wait for the server to appear.
readonly TRIES=100

die() {
    echo "flamegraph: $*" >&2
    exit 1
}

main() {
    [ $# -gt 0 ] || die "which scenario? For example: $0 one-to-many (target/release/tramline-perf --help lists them)"
    local scenario=$1 out=${OUT:-$target/flamegraph-$1.svg}
    shift
    need_command perf linux-perf || die "perf is missing and could not be installed"
    need_command pgrep procps || die "pgrep is missing and could not be installed"
    need_tool inferno "$INFERNO_VERSION" inferno-flamegraph || die "inferno could not be built"
    build
    scratch=$(mktemp -d)
    trap clean_up EXIT
    start_load "$scenario" "$@"
    pid=$(loaded_process "$scenario") || die "the load ended before it began: $(tail -n 3 "$scratch/load.log")"
    sleep "$WARM_UP"
    record "$pid"
    draw "$scenario $*" "$out"
    echo "$out"
}

# Frame pointers in our code and in the C of aws-lc and mimalloc; the assembler of the ciphers has none, so its samples may
# stand beside their callers instead of above them.
build() {
    echo "Building with frame pointers (several minutes the first time)"
    RUSTFLAGS="${RUSTFLAGS:-} -C force-frame-pointers=yes" CFLAGS="${CFLAGS:-} -fno-omit-frame-pointer" \
        cargo build --locked --profile profiling --workspace || die "the build failed, see above"
}

start_load() {
    local bin="$target/profiling" scenario=$1 server=()
    shift
    [ "$scenario" = floor ] || server=(--bin "$bin/tramline")
    "$bin/tramline-perf" "$scenario" "${server[@]}" --rounds 1 --duration $((WARM_UP + SECONDS_RECORDED + 10)) "$@" \
        >"$scratch/load.log" 2>&1 &
    load=$!
}

# The server that the load generator started, or for the floor the generator.
loaded_process() {
    [ "$1" = floor ] && { echo "$load"; return; }
    local try
    for ((try = 0; try < TRIES; try++)); do
        pgrep -P "$load" -x tramline && return
        kill -0 "$load" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

record() {
    echo "Sampling process $1 for $SECONDS_RECORDED s"
    perf record --quiet -e cpu-clock -F "$SAMPLES_PER_SECOND" --call-graph fp -p "$1" -o "$scratch/perf.data" \
        -- sleep "$SECONDS_RECORDED" 2>"$scratch/perf.log" ||
        die "perf could not record: $(tail -n 3 "$scratch/perf.log")
Run as root, or: sysctl kernel.perf_event_paranoid=1 kernel.kptr_restrict=0. In containers perf_event_open must be allowed."
    kill -0 "$load" 2>/dev/null || die "the load ended while recording: $(tail -n 3 "$scratch/load.log")"
}

draw() {
    perf script -i "$scratch/perf.data" 2>/dev/null | "$(tool inferno-collapse-perf)" >"$scratch/folded" 2>/dev/null
    [ -s "$scratch/folded" ] || die "perf recorded no samples: is the server idle?"
    # What has no symbol is named by its file, of which the path says nothing.
    sed -E 's#\[/[^];]*/([^];/]+)\]#[\1]#g' "$scratch/folded" |
        "$(tool inferno-flamegraph)" --title "tramline under tramline-perf $1" --countname samples --hash >"$2.new"
    mv "$2.new" "$2"
}

# Interrupted, the load generator would leave its server behind.
clean_up() {
    local process
    for process in ${pid:-} ${load:-}; do kill "$process" 2>/dev/null || true; done
    wait
    rm -rf "$scratch"
}

main "$@"
