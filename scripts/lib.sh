# Shared by the scripts of this directory: sourced, never run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${TROC_VENV:-$root/.venv}
target=${CARGO_TARGET_DIR:-$root/target}

# Says what is wrong and how to mend it, and ends.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# A heading, so that a long log can be found one's way in.
step() {
    printf '\n== %s\n' "$*"
}

# Prints the comment block at the top of the calling script: its help.
usage() {
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
}

# Processes that this script started; `reap` ends each by its id.
started=()

reap() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${started[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    started=()
}
