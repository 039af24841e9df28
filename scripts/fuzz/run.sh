#!/usr/bin/env bash
# Fuzzes the parsers and everything else a stranger's bytes reach: run.sh SECONDS [TARGET..], SECONDS for each target.
# A finding ends the run with exit code 1; the input that did it lies under artifacts/.
set -euo pipefail
cd "$(dirname "$0")"

readonly ALL=(stun ice rtp rtcp payload dependency srtp negotiation token)
seconds=${1:?"usage: run.sh SECONDS [TARGET..]; targets: ${ALL[*]}"}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${ALL[@]}")

# What cargo-fuzz would set, without the address sanitizer: no unsafe code is reached from here.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-target}
# With a target given, build scripts and proc macros are left uninstrumented.
cargo +nightly build --release --target "$host" "${targets[@]/#/--bin=}"

for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    echo "=== $target"
    "$target_dir/$host/release/$target" "corpus/$target" "seeds/$target" -artifact_prefix="artifacts/$target/" \
        -max_total_time="$seconds" -max_len=4096 -timeout=5 -print_final_stats=1
done
