#!/usr/bin/env bash
# Sets up a Linux host for Tramline, or shows what is set. tuning.md says why, and what each setting brought where measured.
#
#   scripts/tune_host.sh                 status: each setting, what it is, what it should be; changes nothing
#   scripts/tune_host.sh apply           sets what is not yet as it should be, as root; may be run again
#   scripts/tune_host.sh undo            puts back exactly what `apply` found
#
#   --interface NAME    the network card (default: that of the default route)
#   --port PORT[-LAST]  the media port or range, for conntrack (default 3478)
#   --low-latency       also busy polling and shallow C-states: less delay for more electricity
#   --state FILE        what `undo` needs (default /run/tramline/tune_host.state)
#
# Nothing outlives a reboot, the state file neither: let a systemd unit run `apply` before the server. What cannot be set
# here is skipped with the reason. Needs bash and coreutils; ethtool and nft where their settings are to be set.
set -uo pipefail

die() {
    echo "tune_host: $*" >&2
    exit 2
}

main() {
    mode=status interface='' port=3478 low_latency=no state=/run/tramline/tune_host.state
    while [ $# -gt 0 ]; do
        case $1 in
        status | apply | undo) mode=$1 ;;
        --interface) interface=${2:?a name follows --interface}; shift ;;
        --port) port=${2:?a port follows --port}; shift ;;
        --low-latency) low_latency=yes ;;
        --state) state=${2:?a file follows --state}; shift ;;
        *) sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2; exit 2 ;;
        esac
        shift
    done
    [[ $port =~ ^[0-9]+(-[0-9]+)?$ ]] || die "--port is \`$port\`, but must be a port or FIRST-LAST"
    [ "$mode" = status ] || [ "$(id -u)" -eq 0 ] || die "$mode changes the kernel's settings: run it as root"
    interface=${interface:-$(default_interface)}
    failures=0
    if [ "$mode" = undo ]; then undo; else all_settings; closing_words; fi
    [ "$failures" -eq 0 ]
}

all_settings() {
    heading "Socket buffers"
    setting sysctl net.core.rmem_max ">=8388608" "most a socket may get for receiving; a worker asks for 8 MiB"
    setting sysctl net.core.wmem_max ">=8388608" "the same for sending; a full one drops what does not fit"
    heading "The kernel's receive path"
    setting sysctl net.core.netdev_max_backlog ">=8192" "packets a core may hold between cards and sockets where RPS or virtual links are used"
    setting sysctl net.core.netdev_budget ">=600" "packets taken from a card before the kernel hands over to ksoftirqd, where they wait"
    card_settings
    conntrack_settings
    heading "Processors and memory"
    governor_settings
    setting thp enabled "=madvise" "large pages for who asks; with always the kernel may stop threads to make them"
    setting sysctl kernel.io_uring_disabled "=0" "io_uring for everybody; otherwise the server falls back to slower system calls"
    latency_settings
}

# The card's features, and which core does the work for which queue.
card_settings() {
    heading "Network card ${interface:-}"
    local net=/sys/class/net/$interface cores queue index
    if [ -z "$interface" ] || [ ! -d "$net" ]; then
        skip "all of it" "there is no network card${interface:+ called $interface}: name one with --interface"
        return
    fi
    setting feature tx-checksumming "=on" "the card writes checksums; trains need it"
    setting feature generic-segmentation-offload "=on" "trains stay whole until just before the driver"
    setting feature tx-udp-segmentation "=on" "USO: the card itself cuts trains, the largest saving there is"
    setting feature generic-receive-offload "=on" "what comes in one burst from one peer walks the stack once"
    mapfile -t cores < <(online_cores)
    local rx=("$net"/queues/rx-*) tx=("$net"/queues/tx-*)
    irq_settings
    if [ "${#cores[@]}" -eq 1 ]; then
        skip "XPS, RPS" "there is only one core"
        return
    fi
    if [ "${#tx[@]}" -gt 1 ]; then
        for index in "${!tx[@]}"; do
            setting file "${tx[index]}/xps_cpus" "=$(mask "${cores[index % ${#cores[@]}]}")" \
                "XPS: this core sends by this queue, and meets no other core's lock"
        done
    else
        skip XPS "the card has one queue for sending"
    fi
    if [ "${#rx[@]}" -lt "${#cores[@]}" ]; then
        for queue in "${rx[@]}"; do
            setting file "$queue/rps_cpus" "=$(mask "${cores[@]}")" \
                "RPS: fewer queues than cores, so the kernel spreads flows over them"
        done
    else
        skip RPS "every core has a queue of its own"
    fi
}

# Interrupts of queue i to core i, so that cores share the work.
irq_settings() {
    local dir number name
    if pgrep -x irqbalance >/dev/null 2>&1; then
        skip "IRQ affinity" "irqbalance places interrupts: stop it first, it would undo this"
        return
    fi
    dir=$(readlink -f "/sys/class/net/$interface/device" 2>/dev/null)
    [ -d "$dir/msi_irqs" ] || dir=${dir%/*}
    if [ ! -d "$dir/msi_irqs" ]; then
        skip "IRQ affinity" "$interface has no interrupts of its own"
        return
    fi
    if [ "${#rx[@]}" -eq 1 ]; then
        skip "IRQ affinity" "the card has one queue: there is nothing to spread"
        return
    fi
    while read -r number; do
        name=$(sed -nE "s/^ *$number:.* ([^ ]+)$/\1/p" /proc/interrupts)
        # Queues are named with a number at the end: eth0-TxRx-3, virtio0-input.0, mlx5_comp3@pci:...
        [[ ${name%%@*} =~ (input|output|[rR]x|[tT]x|comp|queue|-)[^0-9]*([0-9]+)$ ]] || continue
        setting file "/proc/irq/$number/smp_affinity_list" "=${cores[BASH_REMATCH[2] % ${#cores[@]}]}" \
            "interrupts of $name, queue by queue over the cores"
    done < <(cd "$dir/msi_irqs" && printf '%s\n' * | sort -n)
}

conntrack_settings() {
    heading "Connection tracking"
    local rules tracked
    rules=$({ nft list ruleset; iptables-save; } 2>/dev/null)
    tracked=$(cat /proc/sys/net/netfilter/nf_conntrack_count 2>/dev/null)
    # Rules begin it, also where nothing has come yet.
    if [ "${tracked:-0}" -eq 0 ] && ! grep -Eq "\bct [a-z]|\bnat\b|masquerade|conntrack|-m state" <<<"$rules"; then
        skip "NOTRACK of UDP $port" "nothing is tracked here, so it costs nothing"
        return
    fi
    if grep -Eiq "\b${port%-*}\b.*(dnat|redirect)" <<<"$rules"; then
        skip "NOTRACK of UDP $port" "a NAT rule for the port needs the tracking (a published container port?)"
        return
    fi
    setting notrack "$port" "=on" "no entry per peer in a table that may fill up; the firewall must let the port in by its number"
}

governor_settings() {
    local file found=no
    for file in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
        [ -e "$file" ] || continue
        found=yes
        setting file "$file" "=performance" "full speed at once, also after a pause"
    done
    [ "$found" = yes ] || skip "CPU governor" "the kernel does not set the frequency here (a virtual machine?)"
}

latency_settings() {
    heading "For latency, at the price of electricity"
    if [ "$low_latency" = no ]; then
        skip "busy polling, C-states" "only with --low-latency"
        return
    fi
    setting sysctl net.core.busy_poll "=50" "us that poll looks at the card before it sleeps; only --io mmsg sleeps in poll"
    local state_dir latency found=none
    for state_dir in /sys/devices/system/cpu/cpu[0-9]*/cpuidle/state*; do
        latency=$(cat "$state_dir/latency" 2>/dev/null) || continue
        [ "$found" = deep ] || found=shallow
        # Less than it takes to forward a burst to a hundred.
        [ "$latency" -le 20 ] && continue
        found=deep
        setting file "$state_dir/disable" "=1" "C-state $(cat "$state_dir/name"): waking from it takes $latency us"
    done
    case $found in
    none) skip C-states "the kernel has none here" ;;
    shallow) skip C-states "all of them wake within 20 us" ;;
    esac
}

# setting <kind> <key> <wanted: =value or >=number> <why>: shows it, and in mode apply makes it so.
setting() {
    local kind=$1 key=$2 wanted=$3 why=$4 now reason
    if ! now=$("read_$kind" "$key" 2>/dev/null); then
        reason=$("read_$kind" "$key" 2>&1 >/dev/null | head -n 1)
        skip "$(label "$kind" "$key")" "${reason:-not on this machine}"
        return
    fi
    if is_met "$now" "$wanted"; then
        say ok "$(label "$kind" "$key")" "$now" "$why"
    elif [ "$mode" = status ]; then
        wanted=${wanted/#>=/at least }
        say todo "$(label "$kind" "$key")" "$now, should be ${wanted#=}" "$why"
    else
        change "$kind" "$key" "$now" "${wanted#*=}" "$why"
    fi
}

change() {
    local kind=$1 key=$2 now=$3 value=$4 why=$5 is_first=no reason after
    recorded "$kind" "$key" || { remember "$kind" "$key" "$now"; is_first=yes; }
    if reason=$("write_$kind" "$key" "$value" 2>&1) && after=$("read_$kind" "$key" 2>/dev/null) &&
        [ "$after" = "$value" ]; then
        say set "$(label "$kind" "$key")" "$now -> $after" "$why"
    else
        [ "$is_first" = no ] || forget
        reason=$(head -n 1 <<<"${reason##*: }")
        skip "$(label "$kind" "$key")" "stays $now: ${reason:-the kernel keeps its own value}"
    fi
}

is_met() {
    case $2 in
    ">="*) [ "$1" -ge "${2#>=}" ] ;;
    *) [ "$1" = "${2#=}" ] ;;
    esac
}

# What each kind of setting is, read and written. Reading fails with a sentence where there is no such thing.

read_sysctl() {
    local file=/proc/sys/${1//.//}
    [ -e "$file" ] || { echo "this kernel, or this network namespace, does not have it" >&2; return 1; }
    cat "$file"
}
write_sysctl() { printf '%s\n' "$2" >"/proc/sys/${1//.//}"; }

# The kernel shows masks of cores with leading zeros, as many as it may have cores.
read_file() {
    case $1 in
    *_cpus) sed -E 's/^[0,]+(.)/\1/' "$1" ;;
    *) cat "$1" ;;
    esac
}
write_file() { printf '%s\n' "$2" >"$1"; }

# The choice in brackets of `always [madvise] never`.
read_thp() {
    local all
    all=$(cat "/sys/kernel/mm/transparent_hugepage/$1" 2>/dev/null) || { echo "this kernel has no transparent huge pages" >&2; return 1; }
    sed -E 's/.*\[(.*)\].*/\1/' <<<"$all"
}
write_thp() { printf '%s\n' "$2" >"/sys/kernel/mm/transparent_hugepage/$1"; }

read_feature() {
    command -v ethtool >/dev/null || { echo "ethtool is not installed" >&2; return 1; }
    local line
    line=$(ethtool -k "$interface" 2>/dev/null | grep -E "^$1:") || { echo "$interface does not know it" >&2; return 1; }
    case $line in
    *"off [fixed]"*) echo "the driver of $interface cannot do it" >&2; return 1 ;;
    *": on"*) echo on ;;
    *) echo off ;;
    esac
}
write_feature() { ethtool -K "$interface" "$1" "$2"; }

readonly NFT_TABLE=tramline_notrack
read_notrack() {
    command -v nft >/dev/null || { echo "nft is not installed" >&2; return 1; }
    [ "$(id -u)" -eq 0 ] || { echo "only root can see it" >&2; return 1; }
    if nft list table inet "$NFT_TABLE" >/dev/null 2>&1; then echo on; else echo off; fi
}
write_notrack() {
    # Declared first, deleting works whether it was there or not.
    nft -f - <<<"table inet $NFT_TABLE; delete table inet $NFT_TABLE" || return 1
    [ "$2" = on ] || return 0
    nft -f - <<<"table inet $NFT_TABLE {
        chain incoming { type filter hook prerouting priority raw; udp dport $1 notrack; }
        chain outgoing { type filter hook output priority raw; udp sport $1 notrack; }
    }"
}

# The state file has one line per setting that was changed: kind, key, card, and what it was before the first change.

recorded() {
    [ -e "$state" ] && cut -f 1-3 "$state" | grep -Fqx "$1"$'\t'"$2"$'\t'"${interface:--}"
}

remember() {
    { mkdir -p "$(dirname "$state")" && printf '%s\t%s\t%s\t%s\n' "$1" "$2" "${interface:--}" "$3" >>"$state"; } ||
        die "cannot write $state: without it nothing could be put back, so nothing is changed"
}

# The last line: what could not be changed need not be put back.
forget() { store "$(head -n -1 "$state")"; }

store() {
    if [ -n "$1" ]; then printf '%s\n' "$1" >"$state.new" && mv "$state.new" "$state"; else rm -f "$state"; fi
}

undo() {
    if [ ! -e "$state" ]; then
        echo "There is nothing to undo: $state does not exist."
        return
    fi
    local kind key before reason kept=''
    # The last change goes first.
    while IFS=$'\t' read -r kind key interface before; do
        if reason=$("write_$kind" "$key" "$before" 2>&1) && [ "$("read_$kind" "$key" 2>/dev/null)" = "$before" ]; then
            say back "$(label "$kind" "$key")" "$before" ""
        else
            failures=$((failures + 1))
            kept=$(printf '%s\t%s\t%s\t%s\n%s' "$kind" "$key" "$interface" "$before" "$kept")
            skip "$(label "$kind" "$key")" "could not be put back to $before: ${reason##*: }"
        fi
    done < <(tac "$state")
    store "$kept"
}

closing_words() {
    heading "To look at"
    printf '  open files: %s here (ulimit -n); a peer takes one. systemd: LimitNOFILE=65536; Docker: --ulimit nofile=65536\n' "$(ulimit -n)"
    local second third dropped=0 squeezed=0
    while read -r _ second third _; do
        dropped=$((dropped + 16#$second)) squeezed=$((squeezed + 16#$third))
    done </proc/net/softnet_stat
    echo "  since boot the backlog was full for $dropped packets, and the budget ended a round early $squeezed times"
    awk '$1 == "Udp:" && $2 ~ /^[0-9]/ { printf "  UDP datagrams dropped because a socket was full: %d received, %d sent\n", $6, $7 }' /proc/net/snmp
    [ ! -e "$state" ] || echo "  $0 undo puts back what was changed (kept in $state)"
}

heading() { printf '\n%s\n' "$1"; }

say() {
    printf '  %-5s %-34s %s\n' "$1" "$2" "$3"
    [ -z "$4" ] || printf '        %s\n' "$4"
}

skip() { printf '  %-5s %-34s %s\n' - "$1" "$2"; }

label() {
    case $1 in
    file) sed -E 's#^/sys/class/net/|^/sys/devices/system/cpu/|^/proc/##' <<<"$2" ;;
    thp) echo "transparent_hugepage/$2" ;;
    notrack) echo "NOTRACK of UDP $2" ;;
    *) echo "$2" ;;
    esac
}

default_interface() {
    awk '$2 == "00000000" { print $1; exit }' /proc/net/route 2>/dev/null
}

online_cores() {
    tr ',' '\n' </sys/devices/system/cpu/online | while IFS=- read -r first last; do seq "$first" "${last:-$first}"; done
}

# mask <core>...: the cores as the hexadecimal words of 32 bits that the kernel takes.
mask() {
    local words=() core word text=''
    for core in "$@"; do
        word=$((core / 32))
        words[word]=$((${words[word]:-0} | 1 << core % 32))
    done
    for ((word = $(printf '%s\n' "${!words[@]}" | tail -n 1); word >= 0; word--)); do
        text+=$(printf '%08x,' "${words[word]:-0}")
    done
    sed -E 's/^[0,]+(.)/\1/' <<<"${text%,}"
}

main "$@"
