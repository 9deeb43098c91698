"""Serves one model file twice on loopback: by llama.cpp's own OpenAI server, and by Ollama's API over it (ollama_api.py).

Nothing of the model is emulated: tokens, timings and embeddings are llama.cpp's.
"""

import argparse
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import xllamacpp

import ollama_api

CONTEXT = 2048  # tokens of one conversation
SLOTS = 2  # conversations decoded at one time


def main():
    args = arguments()
    names = args.models.split(",")
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    llama = f"http://127.0.0.1:{args.llama_port or free_port()}"
    server = start_llama(args.gguf, names[0], llama.rsplit(":", 1)[1])  # noqa: F841 (lives as long as this name)
    wait_for(llama + "/health")
    api = ollama_api.listen(args.port, llama, args.gguf, names, CONTEXT, args.log)
    print(f"ready ollama=http://127.0.0.1:{api.server_port} openai={llama}/v1 model={names[0]}", flush=True)
    api.serve_forever()


def arguments():
    parser = argparse.ArgumentParser(prog="start.sh", description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True, help="the model file (start.sh gives it)")
    parser.add_argument("--port", type=int, default=11434, help="of Ollama's API; 0: a free one")
    parser.add_argument("--llama-port", type=int, default=0, help="of llama.cpp's server; 0: a free one")
    parser.add_argument("--log", type=Path, help="append one JSON line per request to Ollama's API")
    parser.add_argument("--models", default="smollm2:135m,phi,llama2,forbidden-model", help="names of the one model")
    return parser.parse_args()


def stop(_signal, _frame):
    os._exit(0)  # llama.cpp's threads have nothing to save, and joining them can take seconds


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_llama(gguf, name, port):
    p = xllamacpp.CommonParams()
    p.model.path = str(gguf)
    p.model_alias = {name}
    p.hostnames = ["127.0.0.1"]
    p.port = int(port)
    p.n_ctx, p.n_parallel = CONTEXT * SLOTS, SLOTS
    # One thread: more are much slower where other programs share the cores.
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(os.environ.get("UPSTREAM_THREADS", "1"))
    p.use_jinja = True
    p.chat_template = Path(__file__).with_name("chatml-tools.jinja").read_text()  # the model's own knows no tools
    p.embedding = True  # one server answers chat, completions and embeddings
    p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    p.warmup = False
    p.endpoint_slots = False
    return xllamacpp.Server(p)


def wait_for(url, seconds=120):
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > end:
                raise SystemExit(f"{url} did not answer in {seconds} s") from None
            time.sleep(0.1)


if __name__ == "__main__":
    main()
