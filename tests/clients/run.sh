#!/usr/bin/env bash
# Real client packages against a real model through the gateway: unchanged clients, but for base URL and key.
#
#   tests/clients/run.sh [--node] [PYTEST ARGUMENT]...
#
# --node runs the Node packages too. Environment:
#   PORTCULLIS_BIN   the gateway under test (built when not set)
#   UPSTREAM_URL     an Ollama that has $MODEL (default: the small model of scripts/upstream is started)
#   MODEL            smollm2:135m
# Last line: "N passed, N failed, N skipped".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

with_node=
if [ "${1:-}" = --node ]; then with_node=1 && shift; fi
export MODEL=${MODEL:-smollm2:135m}

state=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do stop_pid "$pid"; done
    rm -rf "$state"
}
trap cleanup EXIT

# Node looks for packages beside the file that imports them, so the tests run in the cache.
install_node_clients() {
    node_dir=$PORTCULLIS_CACHE/clients-node
    need node nodejs npm npm
    mkdir -p "$node_dir"
    if ! cmp -s "$here/node/package-lock.json" "$node_dir/package-lock.json" || [ ! -d "$node_dir/node_modules" ]; then
        cp "$here/node/package.json" "$here/node/package-lock.json" "$node_dir/"
        (cd "$node_dir" && npm ci --no-audit --no-fund --loglevel=error >&2)
    fi
    cp "$here"/node/*.test.js "$node_dir/"
}

gateway_binary() {
    if [ -z "${PORTCULLIS_BIN:-}" ]; then
        need_build
        (cd "$root" && build_gateway >&2)
        PORTCULLIS_BIN=$CARGO_TARGET_DIR/debug/portcullis
    fi
}

start_broken_upstream() {
    local port
    port=$(free_port)
    "$python" "$here/broken_upstream.py" "$port" </dev/null >/dev/null 2>"$state/broken.log" &
    pids+=($!)
    BROKEN_URL=http://127.0.0.1:$port
}

beside_gateway() {
    "$python" "$root/scripts/sandbox.py" --bin "$PORTCULLIS_BIN" --template "$here/gateway.yaml.in" \
        --set "UPSTREAM=$UPSTREAM_URL" --set "BROKEN=$BROKEN_URL" --set "MODEL=$MODEL" \
        --key API_KEY=alice --key MODELS_ONLY_KEY=alice:models:read \
        --key RATE_LIMITED_KEY=slow --key SPENT_KEY=spent \
        --log "$state/gateway.log" -- "$@"
}

# number WORD FILE: the count before WORD in the last line of pytest's output, or after it in node's.
number() { grep -oE "[0-9]+ $1|^# $1 [0-9]+" "$2" | tail -n 1 | grep -oE '[0-9]+' || echo 0; }

need_python
python=$(python_venv clients "$here/requirements.txt")
[ -z "$with_node" ] || install_node_clients
gateway_binary
if [ -z "${UPSTREAM_URL:-}" ]; then
    start_upstream "$state" --port 0
    pids+=("$UPSTREAM_PID")
fi
start_broken_upstream

failed=0
beside_gateway timeout 900 "$python" -m pytest -q -p no:cacheprovider --color=no "$here" "$@" >"$state/pytest.out" 2>&1 || failed=1
cat "$state/pytest.out"
tail -n 1 "$state/pytest.out" >"$state/summary"
passes=$(number passed "$state/summary") failures=$(number failed "$state/summary") skips=$(number skipped "$state/summary")
errors=$(number errors? "$state/summary")
failures=$((failures + errors))
if [ -n "$with_node" ]; then
    beside_gateway timeout 600 bash -c "cd '$node_dir' && node --test" >"$state/node.out" 2>&1 || failed=1
    cat "$state/node.out"
    passes=$((passes + $(number pass "$state/node.out")))
    failures=$((failures + $(number fail "$state/node.out")))
    skips=$((skips + $(number skipped "$state/node.out")))
fi
if [ $failed -eq 1 ] && [ $failures -eq 0 ]; then failures=1; fi
if [ $failures -gt 0 ] && [ -f "$state/gateway.log" ]; then
    say "--- the gateway's last words"
    tail -n 40 "$state/gateway.log" >&2
fi
echo "$passes passed, $failures failed, $skips skipped"
[ $failures -eq 0 ]
