# For the other scripts to source: gets commands they need, and refuses in a sentence when it cannot.
# shellcheck shell=bash
: "${target:?is the directory cargo builds in; whoever sources this sets it}"

# need_command <command> <package>...: installs the Debian packages unless the command is there.
need_command() {
    command -v "$1" >/dev/null && return 0
    local command=$1
    shift
    echo "Installing $* for $command"
    command -v apt-get >/dev/null || { echo "$command is missing and there is no apt-get: install it by hand." >&2; return 1; }
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
}

# need_tool <crate> <version> <binary>: builds a cargo tool into $target/tools unless there is one; `tool` says where.
need_tool() {
    [ -x "$(tool "$3")" ] && return 0
    echo "Building $1 $2 for $3"
    # Unoptimised: it runs for seconds, and compiles in a fraction of the time.
    CARGO_TARGET_DIR="$target/tools/build" CARGO_PROFILE_DEV_DEBUG=false cargo install --locked --debug --quiet \
        --root "$target/tools" "$1@$2" || return 1
    rm -rf "$target/tools/build"
}

tool() {
    command -v "$1" || echo "$target/tools/bin/$1"
}

# need_component <cargo subcommand> <rustup component>
need_component() {
    cargo "$1" --version >/dev/null 2>&1 || rustup component add "$2"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        echo "Neither root nor sudo: cannot run $*" >&2
        return 1
    fi
}
