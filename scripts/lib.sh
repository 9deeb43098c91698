# shellcheck shell=bash
# What run, test and the scripts under tests/ share. Source it; it starts nothing by itself.

PORTCULLIS_CACHE=${PORTCULLIS_CACHE:-$HOME/.cache/portcullis}
export PORTCULLIS_CACHE
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PORTCULLIS_CACHE}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# need COMMAND PACKAGE [COMMAND PACKAGE]...: installs the Debian packages whose command is missing.
need() {
    local missing=()
    while [ $# -gt 1 ]; do
        command -v "$1" >/dev/null 2>&1 || missing+=("$2")
        shift 2
    done
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

# A python3 that can make virtual environments; on Debian that part is a package of its own.
need_python() {
    need python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
}

# python_venv NAME REQUIREMENTS: prints the python of a virtual environment in the cache that has these packages.
python_venv() {
    local venv=$PORTCULLIS_CACHE/$1 mark
    mark=$venv/installed.$(sha256sum "$2" | cut -c1-16)
    if [ ! -f "$mark" ]; then
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check -r "$2" >&2
        touch "$mark"
    fi
    echo "$venv/bin/python"
}

# What Pingora's dependencies compile with.
need_build() {
    need cc gcc c++ g++ make make cmake cmake pkg-config pkg-config
    command -v cargo >/dev/null 2>&1 || die "cargo is missing: install Rust first (https://rustup.rs)"
}

# A debug build whose scanner is optimised: without that it takes seconds for a prompt of 300 KiB.
build_gateway() { cargo build --locked --config 'profile.dev.package.portcullis-filters.opt-level=1'; }

# need_postgres: sets POSTGRES_BIN to the folder of Postgres's programs, the newest if there are several.
need_postgres() {
    local initdb
    command -v initdb >/dev/null 2>&1 || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || apt_install postgresql
    initdb=$(command -v initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)
    # shellcheck disable=SC2034 # for the scripts that source this
    POSTGRES_BIN=$(dirname "$initdb")
}

apt_install() {
    command -v apt-get >/dev/null 2>&1 || die "please install: $* (there is no apt-get here to do it)"
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    say "installing: $*"
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# free_port: a TCP port of the loopback interface that nobody listens on right now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start_upstream DIR [OPTION]...: starts the small real model (scripts/upstream/start.sh OPTIONS) in the background and
# waits for it. Sets UPSTREAM_PID and UPSTREAM_URL; logs go to DIR. The caller stops it with stop_pid "$UPSTREAM_PID".
start_upstream() {
    local dir=$1 here
    shift
    here=$(dirname "${BASH_SOURCE[0]}")
    "$here/upstream/start.sh" "$@" >"$dir/upstream.out" 2>"$dir/upstream.log" </dev/null &
    UPSTREAM_PID=$!
    for _ in $(seq 1200); do # the first run downloads about 110 MB
        if UPSTREAM_URL=$(sed -n 's/^ready ollama=\([^ ]*\).*/\1/p' "$dir/upstream.out") && [ -n "$UPSTREAM_URL" ]; then
            return
        fi
        kill -0 "$UPSTREAM_PID" 2>/dev/null || break
        sleep 0.5
    done
    stop_pid "$UPSTREAM_PID"
    tail -n 20 "$dir/upstream.log" >&2
    die "the model did not start"
}

# stop_pid PID: asks a child to end, and ends it after 10 s.
stop_pid() {
    kill -TERM "$1" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}
