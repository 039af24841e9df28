#!/usr/bin/env bash
# Tramline and the servers that can be had from package registries under the same load, in alternating rounds.
#
#   perf/compare.sh                                            all peers, all scenarios, 3 rounds of 3 s: about 10 minutes
#   perf/compare.sh --peers "tramline str0m" --scenario burst1 --rounds 1
#   perf/compare.sh --prepare                                  only build and install what is missing
#
# Writes perf/results/compare.md and one compare-SCENARIO.svg each. A peer that cannot be had or does not run is said in
# the table and stops nobody. Sources and binaries of peers, and the logs of building
# them, lie in ${XDG_CACHE_HOME:-~/.cache}/tramline-compare (the cache); servers log into target/compare.
set -uo pipefail

usage() {
	cat <<-END
		usage: perf/compare.sh [flags]
		  --peers "A B .."      of: floor tramline str0m pion mediamtx janus (all)
		  --scenario "A B .."   of: burst10 burst10-gro burst1 meeting audio-room (those that tramline-perf knows)
		  --rounds N            alternating rounds (3)
		  --duration S          seconds of a round (3)
		  --subscribers N       subscribers of the burst scenarios (50)
		  --out DIR             where table and pictures go (perf/results)
		  --prepare             build and install, measure nothing
		  --no-install          measure with what is there
	END
}

root=$(cd "$(dirname "$0")/.." && pwd)
here=$root/perf/compare
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tramline-compare
bin=$root/target/release
work=$root/target/compare

# The newest versions that the registries and the Go at hand gave when this was written.
mediamtx_version=${MEDIAMTX_VERSION:-v1.13.0}

peers="floor tramline str0m pion mediamtx janus"
scenarios="burst10 burst10-gro burst1 meeting audio-room"
rounds=3 duration=3 subscribers=50 out=$root/perf/results prepare_only="" install=1
while [ $# -gt 0 ]; do
	case $1 in
		--peers) peers=$2; shift ;;
		--scenario | --scenarios) scenarios=$2; shift ;;
		--rounds) rounds=$2; shift ;;
		--duration) duration=$2; shift ;;
		--subscribers) subscribers=$2; shift ;;
		--out) out=$2; shift ;;
		--prepare) prepare_only=1 ;;
		--no-install) install="" ;;
		-h | --help) usage; exit 0 ;;
		*) usage >&2; exit 2 ;;
	esac
	shift
done

for peer in $peers; do
	[[ " floor tramline str0m pion mediamtx janus " = *" $peer "* ]] || { usage >&2; exit 2; }
done

say() { echo "compare: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

# ---- what each peer needs: `prepare_X` leaves it ready or says in one line what to do and fails --------------------

prepare_floor() { :; }
prepare_tramline() { [ -x "$bin/tramline" ] || { echo "no target/release/tramline; cargo build --release"; return 1; }; }
prepare_str0m() { [ -x "$bin/str0m_sfu" ] || { echo "no target/release/str0m_sfu; cargo build --release -p tramline-perf"; return 1; }; }

need_go() { has go || { echo "no Go; install Go 1.24 or newer (Debian: golang-go)"; return 1; }; }

prepare_pion() {
	need_go || return
	[ "$cache/pion_sfu" -nt "$here/pion/main.go" ] && [ "$cache/pion_sfu" -nt "$here/pion/go.mod" ] && return
	(cd "$here/pion" && nice go build -o "$cache/pion_sfu" .) >"$cache/pion.log" 2>&1 ||
		{ echo "Pion does not build; see pion.log in the cache"; return 1; }
}

# Its repository leaves out what `go generate` fetches: a version, and hls.js, which its HLS server (unused here) embeds.
prepare_mediamtx() {
	local version=$mediamtx_version binary=$cache/mediamtx-$mediamtx_version source=$cache/mediamtx-src module hls
	[ -x "$binary" ] && return
	need_go || return
	has npm || { echo "no npm for hls.js, which MediaMTX embeds; install npm"; return 1; }
	(
		set -e
		cd "$cache"
		go mod download "github.com/bluenviron/mediamtx@$version"
		module=$(go env GOMODCACHE)/github.com/bluenviron/mediamtx@$version
		rm -rf "$source"
		cp -r "$module" "$source"
		chmod -R u+w "$source"
		echo "$version" >"$source/internal/core/VERSION"
		hls=$(npm pack --silent "hls.js@$(tr -d v <"$source/internal/servers/hls/hlsjsdownloader/VERSION")")
		tar -xzOf "$hls" package/dist/hls.min.js >"$source/internal/servers/hls/hls.min.js"
		cd "$source"
		nice go build -o "$binary" .
	) >"$cache/mediamtx.log" 2>&1 || { echo "MediaMTX $version does not build; see mediamtx.log in the cache"; return 1; }
}

prepare_janus() {
	[ -x "$bin/janus_front" ] || { echo "no target/release/janus_front; cargo build --release -p tramline-perf"; return 1; }
	has janus && return
	if [ -z "$install" ] || [ "$(id -u)" != 0 ] || ! has apt-get; then
		echo "no janus; apt-get install janus"
		return 1
	fi
	{ apt-get update && apt-get install -y --no-install-recommends janus; } >"$cache/janus.log" 2>&1 ||
		{ echo "Janus is not to be had; see janus.log in the cache"; return 1; }
}

about() {
	case $1 in
		floor) echo "nothing but AES-GCM and the kernel, on one thread: no server; trains as Tramline's where it has them" ;;
		tramline) echo "\`--workers 1\`, $(git -C "$root" describe --always --dirty 2>/dev/null)" ;;
		str0m) echo "plain SFU on $(crate str0m), one thread, RTP mode, sendmmsg (\`perf/src/bin/str0m_sfu.rs\`)" ;;
		pion) echo "plain SFU on pion/webrtc $(sed -n 's/.*pion\/webrtc\/v4 //p' "$here/pion/go.mod"), $(go version | cut -d' ' -f3), one UDP port, GOMAXPROCS=1 (\`perf/compare/pion\`)" ;;
		mediamtx) echo "MediaMTX $mediamtx_version from its Go module, GOMAXPROCS=1; takes VP8 frames apart and packs them anew (\`perf/compare/mediamtx.yml\`)" ;;
		janus) echo "Janus $(dpkg-query -W -f '${Version}' janus 2>/dev/null) from Debian, videoroom, one event loop (\`perf/compare/janus\`)" ;;
	esac
}

crate() { sed -n "/^name = \"$1\"\$/{n;s/version = \"\(.*\)\"/$1 \1/p}" "$root/Cargo.lock"; }

# ---- starting and ending one server --------------------------------------------------------------------------------

children=()
stop_all() {
	local pid
	for pid in "${children[@]:-}"; do [ -n "$pid" ] && kill "$pid" 2>/dev/null; done
	for pid in "${children[@]:-}"; do [ -n "$pid" ] && wait "$pid" 2>/dev/null; done
	children=()
}
trap stop_all EXIT
trap 'exit 130' INT TERM

free_port() {
	local port
	while port=$((20000 + RANDOM % 12000)); ss -Hantu 2>/dev/null | grep -q ":$port "; do :; done
	echo "$port"
}

# Waits until somebody listens, or the process has ended.
await_port() {
	local port=$1 pid=$2 tries=100
	while [ $((tries -= 1)) -gt 0 ]; do
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
		kill -0 "$pid" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}

# Sets `pid` (whose CPU time is measured) and `door` (flags of the load generator).
start() {
	local http media api dir
	http=$(free_port) media=$(free_port)
	door=(--door whip --server "127.0.0.1:$http")
	case $1 in
		str0m) "$bin/str0m_sfu" --http "127.0.0.1:$http" --media "127.0.0.1:$media" >>"$work/$1.log" 2>&1 & ;;
		pion) GOMAXPROCS=1 "$cache/pion_sfu" -http "127.0.0.1:$http" -media "127.0.0.1:$media" >>"$work/$1.log" 2>&1 & ;;
		mediamtx)
			door+=(--whip-url "http://{server}/{room}/whip" --whep-url "http://{server}/{room}/whep")
			GOMAXPROCS=1 MTX_WEBRTCADDRESS=127.0.0.1:$http MTX_WEBRTCLOCALUDPADDRESS=127.0.0.1:$media \
				"$cache/mediamtx-$mediamtx_version" "$here/mediamtx.yml" >>"$work/$1.log" 2>&1 &
			;;
		janus)
			api=$(free_port) dir=$work/janus
			mkdir -p "$dir/plugins" "$dir/transports" "$dir/none"
			link_janus plugins videoroom "$dir" && link_janus transports websockets "$dir" || return 1
			for file in "$here"/janus/*.jcfg; do
				sed "s|@DIR@|$dir|; s|@PORT@|$api|" "$file" >"$dir/$(basename "$file")"
			done
			janus --config "$dir/janus.jcfg" --configs-folder "$dir" >>"$work/$1.log" 2>&1 &
			;;
	esac
	pid=$!
	children+=("$pid")
	if [ "$1" = janus ]; then
		await_port "$api" "$pid" || return 1
		"$bin/janus_front" --http "127.0.0.1:$http" --janus "ws://127.0.0.1:$api" >>"$work/$1.log" 2>&1 &
		children+=($!)
		await_port "$http" "$!" || return 1
	else
		await_port "$http" "$pid" || return 1
	fi
	door+=(--pid "$pid")
}

# A link to one module of Janus in a folder of its own, so that the others are not loaded.
link_janus() {
	local file
	file=$(find /usr/lib /usr/local/lib /opt -path "*janus/$1/libjanus_$2.so" 2>/dev/null | head -n 1)
	[ -n "$file" ] && ln -sf "$file" "$3/$1/"
}

# ---- the rounds ----------------------------------------------------------------------------------------------------

# Flags of the load generator for a scenario.
load() {
	case $1 in
		burst10) echo one-to-many -n "$subscribers" -b 10 --bare-vp8 ;;
		burst10-gro) echo one-to-many -n "$subscribers" -b 10 --bare-vp8 --gro ;;
		burst1) echo one-to-many -n "$subscribers" -b 1 --bare-vp8 ;;
		meeting) echo meeting -n 10 ;;
		audio-room) echo audio-room -k 5 -n "$subscribers" ;;
		*) echo "$1" ;;
	esac
}

# The floor of a scenario: its flags, or nothing where there is none.
floor_of() {
	case $1 in
		burst10*) load "$1" | sed 's/one-to-many/floor --train 10/' ;;
		burst1) load "$1" | sed 's/one-to-many/floor --train 1/' ;;
		meeting) echo floor --meeting -n 10 --train 10 ;;
		audio-room) echo floor -n "$subscribers" -k 5 -r 50 -b 1 --packet-bytes 100 --train 1 ;;
	esac
}

title() {
	case $1 in
		burst10) echo "One publisher, $subscribers subscribers, 1200-byte packets at 1000/s in bursts of 10, plain receivers" ;;
		burst10-gro) echo "The same, receivers take whole trains (UDP_GRO)" ;;
		burst1) echo "The same in bursts of 1: no trains possible" ;;
		meeting) echo "Meeting 10 x 10: video of 1 Mbit/s as an encoder sends it, and audio" ;;
		audio-room) echo "Audio room: 5 speakers, $subscribers listeners, 100-byte packets at 50/s each" ;;
		*) echo "$1" ;;
	esac
}

common=(--rounds 1 -d "$duration" --warm-up 1)

# One peer, one round; the report goes to $place/$peer.$round.json.
measure() {
	local scenario=$1 peer=$2 round=$3 place=$4 kind json=$4/$2.$3.json door pid
	read -r -a kind <<<"$(load "$scenario")"
	if [ "$peer.$scenario" = mediamtx.meeting ]; then
		echo "it packs frames anew, so its packets are not those that were sent" >"$place/$peer.failed"
		return
	fi
	case $peer in
		floor)
			read -r -a kind <<<"$(floor_of "$scenario")"
			[ ${#kind[@]} -gt 0 ] || return 0
			set -- "${kind[@]}" --suite gcm256
			;;
		tramline) set -- "${kind[@]}" --bin "$bin/tramline" --workers 1 --door "${TRAMLINE_DOOR:-whip}" ;;
		*)
			start "$peer" || { echo "it did not start; see target/compare/$peer.log" >"$place/$peer.failed"; stop_all; return; }
			set -- "${kind[@]}" "${door[@]}"
			;;
	esac
	if ! timeout 120 "$bin/tramline-perf" "$@" "${common[@]}" --json "$json" >"$work/last.log" 2>&1; then
		cat "$work/last.log" >>"$work/$peer.log"
		grep -v '^.round' "$work/last.log" | sed -n 's/^Error: //p' | head -n 1 >"$place/$peer.failed"
		rm -f "$json"
	fi
	stop_all
}

mkdir -p "$cache" "$work" "$out"
if [ -n "$install" ]; then
	say "building what runs here"
	(cd "$root" && nice cargo build --release --workspace) >"$work/build.log" 2>&1 ||
		say "cargo build failed; see target/compare/build.log; going on with what is there"
fi
[ -x "$bin/tramline-perf" ] || { say "no target/release/tramline-perf; run: cargo build --release -p tramline-perf"; exit 1; }

results=$work/results
rm -rf "$results" "$work"/*.log.old
mkdir -p "$results"
: >"$results/peers"
ready=()
declare -A missing=()
for peer in $peers; do
	say "preparing $peer"
	if why=$("prepare_$peer"); then ready+=("$peer"); else missing[$peer]=$why; say "$peer: $why"; fi
	printf '%s\t%s\n' "$peer" "$(about "$peer")" >>"$results/peers"
done
[ -n "$prepare_only" ] && exit 0

load_before=$(cut -d' ' -f1-3 /proc/loadavg)
known=$("$bin/tramline-perf" --help)
for scenario in $scenarios; do
	read -r kind _ <<<"$(load "$scenario")"
	grep -q "^  $kind " <<<"$known" || { say "tramline-perf does not know $kind: left out"; continue; }
	place=$results/$scenario
	mkdir -p "$place"
	printf '%s\t%s\n' "$scenario" "$(title "$scenario")" >>"$results/conditions"
	for peer in "${!missing[@]}"; do echo "${missing[$peer]}" >"$place/$peer.failed"; done
	for round in $(seq "$rounds"); do
		for peer in "${ready[@]}"; do
			# What fails once is not waited for again.
			[ -e "$place/$peer.failed" ] && continue
			say "$scenario, round $round of $rounds: $peer"
			measure "$scenario" "$peer" "$round" "$place"
		done
	done
done
[ -s "$results/conditions" ] || { say "no scenario to run"; exit 1; }

table=$("$bin/compare_table" "$results") || exit 1
{
	cat "$here/head.md"
	echo "$(uname -sr), $(nproc) cores ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)), load before the run and after:" \
		"$load_before, $(cut -d' ' -f1-3 /proc/loadavg). Rounds: $rounds of $duration s."
	echo
	echo "$table"
} >"$out/compare.md"
while IFS=$'\t' read -r scenario name; do
	reports=()
	for peer in tramline $peers; do
		for file in "$results/$scenario/$peer".*.json; do
			[[ -e $file && " ${reports[*]:-} " != *" $peer=$file "* ]] && reports+=("$peer=$file")
		done
	done
	[ ${#reports[@]} -gt 0 ] || continue
	"$bin/tramline-perf" chart "${reports[@]}" --title "$name" -o "$out/compare-$scenario.svg" >"$work/last.log" 2>&1 ||
		say "no picture of $scenario; see target/compare/last.log"
done <"$results/conditions"
cat "$out/compare.md"
