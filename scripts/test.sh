#!/usr/bin/env bash
# Installs what the tests need and runs them all. Ends with a table and exit code 0 only if everything passed.
#
#   scripts/test.sh                 everything (what CI runs)
#   scripts/test.sh clippy browser  some of: fmt clippy test bench deny browser clients
#
# Needs Rust and network to the registries; Debian packages are installed as root or through sudo when missing.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
exec </dev/null

readonly DENY_VERSION=0.20.2
readonly ALL_STEPS=(fmt clippy test bench deny browser clients)
target=${CARGO_TARGET_DIR:-target}
. scripts/need.sh
export CARGO_TERM_PROGRESS_WHEN=never
# Incremental state only pays where the next build is on the same machine.
if [ -n "${CI:-}" ]; then export CARGO_INCREMENTAL=0; fi

summary=()
failed=0

main() {
    local steps=("$@")
    [ ${#steps[@]} -gt 0 ] || steps=("${ALL_STEPS[@]}")
    local step
    for step in "${steps[@]}"; do
        case " ${ALL_STEPS[*]} " in
        *" $step "*) ;;
        *) echo "There is no step called $step; there are: ${ALL_STEPS[*]}" >&2; exit 2 ;;
        esac
    done
    # Debug builds compile C too, so the compiler is needed by every step but fmt.
    need_command cc gcc libc6-dev
    for step in "${steps[@]}"; do run_step "$step"; done

    printf '\n%s\n' "${summary[@]}"
    if [ "$failed" -ne 0 ]; then echo "FAILED"; else echo "PASSED"; fi
    return "$failed"
}

run_step() {
    printf '\n=== %s\n' "$1"
    local start=$SECONDS verdict=ok
    "step_$1" || { verdict=FAILED; failed=1; }
    summary+=("$(printf '%-8s %4d s  %s' "$1" $((SECONDS - start)) "$verdict")")
}

step_fmt() {
    need_component fmt rustfmt && cargo fmt --all --check
}

step_clippy() {
    need_component clippy clippy && cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
}

step_test() {
    need_command ip iproute2
    need_command ffprobe ffmpeg
    cargo test --locked --workspace --all-features
}

# Compiled in the dev profile: what CI asks is whether they build, and the dependencies are there already.
step_bench() {
    if compgen -G 'benches/*.rs' >/dev/null; then
        cargo bench --locked --all-features --no-run --profile dev
    else
        echo "There are no benches."
    fi
}

step_deny() {
    need_tool cargo-deny "$DENY_VERSION" cargo-deny || return 1
    local deny
    deny=$(tool cargo-deny)
    "$deny" --locked check licenses bans sources || return 1
    local log
    log=$("$deny" --locked check advisories 2>&1) && { echo "$log"; return 0; }
    echo "$log"
    case "$log" in
    *"failed to fetch advisory database"*) echo "NOTE: the advisory database cannot be reached from here; advisories were not checked." ;;
    *) return 1 ;;
    esac
}

step_browser() {
    need_command chromium chromium
    need_command node nodejs npm
    need_command npm npm
    cargo build --locked || return 1
    (
        cd tests/browser || exit 1
        npm ci --no-audit --no-fund || exit 1
        CHROMIUM=$(command -v chromium) node run.mjs
    )
}

step_clients() {
    need_command python3 python3 python3-venv
    cargo build --locked && tests/clients/run.sh
}

main "$@"
