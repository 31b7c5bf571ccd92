# Shared by the scripts of this directory: sourced, never run.
# shellcheck shell=bash

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

here=$root/perf
# What `--help` of every script here says about its common flags:
#   --pid PID, --seconds S, --connections N, --troc FILE, --out DIR
pid=
seconds=5
connections=16
troc=
out=
metrics=
scratch=

# Longest measurement: a forgotten profile must not fill the disk.
seconds_max=60

# Takes the flags that all scripts have in common; the script's own are in `own_flags`, name=variable.
parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --pid) pid=${2:?} ;;
            --seconds) seconds=${2:?} ;;
            --connections) connections=${2:?} ;;
            --troc) troc=${2:?} ;;
            --out) out=${2:?} ;;
            --metrics) metrics=${2:?} ;;
            *) usage >&2; exit 2 ;;
        esac
        shift 2
    done
    [[ $seconds =~ ^[0-9]+$ && $seconds -ge 1 && $seconds -le $seconds_max ]] ||
        die "--seconds $seconds: give a whole number from 1 to $seconds_max"
    [[ $connections =~ ^[0-9]+$ && $connections -ge 1 ]] || die "--connections $connections: give a whole number"
    [ -z "$pid" ] || kill -0 "$pid" 2>/dev/null || die "no process $pid that you may look at: give --pid of a running troc"
    out=${out:-$target/perf/out}
    mkdir -p "$out"
    scratch=$(mktemp -d)
    trap finish EXIT
}

finish() {
    reap
    rm -rf "$scratch"
}

# perf itself, and the right to use it.
need_perf() {
    command -v perf >/dev/null || die "needs perf: run scripts/setup, or install linux-perf"
    perf stat -e task-clock true >/dev/null 2>&1 ||
        die "perf is not allowed here: run as root, or sudo sysctl kernel.perf_event_paranoid=1"
}

need_tracepoints() {
    perf stat -e "$1" true >/dev/null 2>&1 ||
        die "no tracepoint $1 for you: run as root (they need CAP_PERFMON and tracefs)"
}

# Whether the processor counts for us; most virtual machines have no counters.
has_hardware_counters() {
    perf stat -x, -e instructions true 2>&1 | grep -q '^[0-9]'
}

# A troc whose stacks can be walked: the bench profile with frame pointers, in a target directory of
# its own, so that no other build is made anew because of the flag.
build() {
    [ -z "$troc" ] || return 0
    step "Build with frame pointers"
    (
        cd "$root"
        export RUSTFLAGS="${RUSTFLAGS:-} -C force-frame-pointers=yes" CFLAGS="${CFLAGS:-} -fno-omit-frame-pointer"
        cargo build --quiet --locked --profile bench --bin troc --target-dir "$target/perf"
    )
    troc=$target/perf/release/troc
}

# Unless --pid names a node: relays 256 MiB on CPU 0 and loads it from CPU 1, on loopback.
serve() {
    [ -z "$pid" ] || return 0
    build
    step "Relay on CPU 0, $connections connections from CPU 1, $seconds s"
    mkdir "$scratch/data"
    head -c 256M /dev/urandom >"$scratch/data/set"
    "$troc" create "$scratch/data/set" -o "$scratch/set.torrent" >/dev/null
    taskset -c 0 "$troc" relay "$scratch/set.torrent" --dir "$scratch/data" --state "$scratch/state" --cores 1 \
        --cache 512MiB --listen 127.0.0.1:0 --metrics 127.0.0.1:0 --json >"$scratch/relay.json" 2>"$scratch/relay.log" &
    pid=$!
    started+=("$pid")
    local tries=0
    until grep -q '"state":"seeding"' "$scratch/relay.json"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] && kill -0 "$pid" || die "the relay did not start: $(tail -n 1 "$scratch/relay.log")"
        sleep 0.1
    done
    local address
    address=$(grep -o '"listen":"[^"]*"' "$scratch/relay.json" | head -n 1 | cut -d'"' -f4)
    metrics=$(grep -o '"metrics":"[^"]*"' "$scratch/relay.json" | head -n 1 | cut -d'"' -f4)
    # It outlasts the measurement, which begins when all has been read from disk.
    "$troc" bench leech "$address" --torrent "$scratch/set.torrent" --connections "$connections" --depth 64 \
        --seconds $((seconds + 60)) --cpu 1 --json >"$scratch/leech.json" 2>"$scratch/leech.log" &
    started+=("$!")
    tries=0
    until [ "$(metric troc_sent_bytes_total)" -gt $((512 << 20)) ]; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] && kill -0 "$!" 2>/dev/null || die "no load: $(tail -n 1 "$scratch/leech.log")"
        sleep 0.1
    done
}

# One figure of the node, summed over its labels; nothing without --metrics.
metric() {
    [ -n "$metrics" ] || return 0
    exec 3<>"/dev/tcp/${metrics%:*}/${metrics##*:}" || die "nobody serves metrics on $metrics"
    printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
    awk -v name="$1" '{ split($1, part, "{") } part[1] == name { sum += $2 } END { printf "%d\n", sum }' <&3
    exec 3>&-
}

# Ids of the worker threads.
workers() {
    local task
    for task in "/proc/$pid/task"/*; do
        case $(cat "$task/comm") in troc-[0-9]*) basename "$task" ;; esac
    done | paste -sd,
}
