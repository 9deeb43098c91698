#!/usr/bin/env bash
# A throwaway Postgres from Debian's packages, for tests: it listens on a free port of the loopback interface only.
#   scripts/postgres.sh start DIR    makes a cluster in DIR, starts it, and prints the URL of its administrator
#   scripts/postgres.sh stop DIR     stops it, by its process id, and removes the cluster
#   scripts/postgres.sh halt DIR     stops it and keeps the cluster
#   scripts/postgres.sh restart DIR  starts it again, on the same port
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# Postgres refuses to run as root: then it runs as the user that its package made.
as_server() {
    if [ "$(id -u)" -eq 0 ]; then
        runuser -u postgres -- "$@"
    else
        "$@"
    fi
}

# The cluster stands in /tmp, where its user can reach it; DIR holds a link to it and the credentials.
make_cluster() {
    local password
    mkdir -p "$dir"
    data=$(as_server mktemp -d /tmp/portcullis-postgres.XXXXXX)
    ln -s "$data" "$link"
    password=$(od -An -N 18 -tx1 /dev/urandom | tr -d ' \n')
    # shellcheck disable=SC2016 # the inner shell expands it
    as_server sh -c 'umask 077 && cat >"$0"' "$data/password" <<<"$password"
    as_server "$POSTGRES_BIN/initdb" -D "$data/cluster" -U admin -E UTF8 --locale=C.UTF-8 --auth=scram-sha-256 \
        --pwfile="$data/password" >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; die "initdb failed"; }
    (umask 077 && echo "$(free_port) $password" >"$dir/credentials")
}

# Without fsync: what is thrown away need not survive the machine.
launch() {
    as_server "$POSTGRES_BIN/pg_ctl" start -w -t 60 -s -D "$data/cluster" -l "$data/server.log" \
        -o "-F -h 127.0.0.1 -p $1 -c unix_socket_directories=''" >&2 || { as_server tail -n 20 "$data/server.log" >&2; die "Postgres did not start"; }
}

halt() {
    local pid
    pid=$(as_server head -n 1 "$data/cluster/postmaster.pid" 2>/dev/null) || return 0
    as_server kill -INT "$pid" 2>/dev/null || return 0 # a fast shutdown: sessions are cut
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    as_server kill -QUIT "$pid" 2>/dev/null || true
}

[ $# -eq 2 ] || die "usage: $0 start|stop|halt|restart DIR"
dir=$2
link=$dir/postgres
data=$(readlink "$link" || true)
need python3 python3 runuser util-linux
need_postgres
case $1 in
    start)
        [ -z "$data" ] || die "$link is there already: stop it first"
        make_cluster
        read -r port password <"$dir/credentials"
        launch "$port"
        echo "postgres://admin:$password@127.0.0.1:$port/postgres"
        ;;
    halt) halt ;;
    restart)
        halt
        read -r port _ <"$dir/credentials"
        launch "$port"
        ;;
    stop)
        halt
        [ -z "$data" ] || rm -rf "$data"
        rm -f "$link" "$dir/credentials" "$dir/initdb.log"
        ;;
    *) die "unknown: $1" ;;
esac
