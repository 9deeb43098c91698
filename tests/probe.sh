#!/usr/bin/env bash
# The black-box security probe of the folder ../shared/probes, where that folder is there, against a gateway of its own.
#
#   tests/probe.sh [PROBE OPTION]...       such as --only JSON,SMUG or --slow
#
# Environment: PROBES (its folder), PORTCULLIS_BIN (built when not set).
# Last line: "N passed, N failed, N skipped".
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

probes=${PROBES:-$root/../shared/probes}
if [ ! -f "$probes/probe.py" ]; then
    echo "skipped: there is no probe in $probes"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi

state=$(mktemp -d)
mock=
cleanup() {
    [ -z "$mock" ] || stop_pid "$mock"
    rm -rf "$state"
}
trap cleanup EXIT

need_python
if [ -z "${PORTCULLIS_BIN:-}" ]; then
    need_build
    (cd "$root" && build_gateway >&2)
    PORTCULLIS_BIN=$CARGO_TARGET_DIR/debug/portcullis
fi

port=$(free_port)
# Its listen queue of 5 refuses connections of a burst, which is not what is tried here.
python3 -c 'import http.server, runpy, sys; http.server.ThreadingHTTPServer.request_queue_size = 256
sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")' "$probes/mock_upstream.py" "$port" </dev/null >"$state/mock.log" 2>&1 &
mock=$!
for _ in $(seq 100); do
    port_is_free "$port" || break
    sleep 0.1
done

tls_port=$(free_port)
need openssl openssl
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -keyout "$state/key.pem" -out "$state/cert.pem" 2>"$state/openssl.log"

# Out of reach until answers are scanned on their way back (docs/probe.md): OUT-01 and OUT-03.
export PROBE_ONLY=AUTH,CAP,JWT,JSON,ENC,FW,OUT-05,OUT-06,OUT-07,OUT-08,PATH,HDR,SMUG,LOGIN,WEB,AUD,QUO,H2-01,H2-02,H2-04,H2-05,SLOW,END
export ENROL=$root/tests/probe/enrol.py
export PROBE_SCRIPT=$probes/probe.py PROBE_UPSTREAM=http://127.0.0.1:$port PROBE_H2=https://127.0.0.1:$tls_port
# shellcheck disable=SC2016 # these are for the inner shell, which has the sandbox's environment
python3 "$root/scripts/sandbox.py" --bin "$PORTCULLIS_BIN" --template "$root/tests/probe/gateway.yaml.in" \
    --set "UPSTREAM=http://127.0.0.1:$port" --set "TLS_PORT=$tls_port" \
    --set "CERT=$state/cert.pem" --set "CERT_KEY=$state/key.pem" --key API_KEY=alice --key METERED_KEY=metered -- \
    timeout 900 bash -c '
        mfa_secret=$("$ENROL" second) || exit 1
        python3 "$PROBE_SCRIPT" --base "$GATEWAY_URL" --user "$GATEWAY_USER" --password "$GATEWAY_PASSWORD" \
            --api-key "$API_KEY" --audit-file "$AUDIT_FILE" --quota-key "$METERED_KEY" --quota-limit 50 \
            --h2-base "$PROBE_H2" --lockout-user lockme --destructive \
            --mfa-user second --mfa-password "$GATEWAY_PASSWORD" --mfa-secret "$mfa_secret" --slow --strict-framing --only "$PROBE_ONLY" \
            --set header_deadline=15 --set health=/livez "$@"' probe "$@"
