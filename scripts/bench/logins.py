#!/usr/bin/env python3
"""What logins cost everybody else: latency of inference while nobody logs in, and while 20 callers do, over and over.

    logins.py [--rounds 3] [--secs 8] [--built]

The gateway has all cores; 200 requests a second go through it to a mock. Both parts are measured in turns (A B A B …).
Every login is of another address, so that none is throttled, and one in two has the wrong password.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench
from bench import TOOLS, sandbox, spawn, stop, wait_for_port

CALLERS = 20
RATE = 200


class Logins:
    """Callers who log in until they are told to stop: a process of its own, which takes only the time that is left, for in
    earnest callers are on other machines."""

    def __init__(self, box):
        self.stop, self.statuses = multiprocessing.Event(), multiprocessing.Queue()
        self.process = multiprocessing.Process(target=call, args=(box.url, box.password, self.stop, self.statuses))

    def __enter__(self):
        self.process.start()
        time.sleep(1)
        return self

    def __exit__(self, *_):
        self.stop.set()
        print(f"logins by status: {self.statuses.get(timeout=60)}")
        self.process.join()


def call(url, password, stop, statuses):
    os.nice(19)
    with ThreadPoolExecutor(CALLERS) as pool:
        counts = pool.map(lambda number: log_in(number, url, password, stop), range(CALLERS))
    statuses.put(dict(sum(counts, Counter())))


def log_in(number, url, password, stop):
    seen = Counter()
    while not stop.is_set():
        right = seen.total() % 2 == 0
        seen[attempt(url, password if right else "a wrong password", f"198.18.{number}.{seen.total() % 250}")] += 1
    return seen


def attempt(url, password, address):
    body = json.dumps({"username": "alice", "password": password}).encode()
    headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
    request = urllib.request.Request(url + "/auth/login", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--secs", type=float, default=8)
    parser.add_argument("--built", action="store_true")
    args = parser.parse_args()
    args.peers, args.gateway = ["portcullis"], None
    bench.build(args)
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as folder:
        run(args, Path(folder))


def run(args, folder):
    port = sandbox.free_ports(1)[0]
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    mock = spawn([TOOLS / "mock_upstream", f"127.0.0.1:{port}"], cores, folder / "mock.log")
    home = folder / "portcullis"
    home.mkdir()
    template = (bench.HERE / "gateway.yaml.in").read_text().replace("{threads: 1}", "{trusted_proxies: [127.0.0.1/32]}")
    (folder / "gateway.yaml.in").write_text(template)
    box = sandbox.Sandbox(TOOLS / "portcullis", folder / "gateway.yaml.in", home,
                          {"UPSTREAM": f"http://127.0.0.1:{port}"}, {"API_KEY": "alice"})
    gateway = spawn(box.command, cores, folder / "gateway.log")
    try:
        wait_for_port(port, mock, folder / "mock.log")
        wait_for_port(box.port, gateway, folder / "gateway.log")
        rounds = [(load(box, folder, args), under_logins(box, folder, args)) for _ in range(args.rounds)]
    finally:
        stop(gateway)
        stop(mock)
    for name in ("p50", "p99"):
        idle = statistics.median(idle["latency"][name] for idle, _ in rounds)
        busy = statistics.median(busy["latency"][name] for _, busy in rounds)
        print(f"{name}: {idle:.0f} µs idle, {busy:.0f} µs with {CALLERS} callers who log in: {busy / idle:.2f} times")


def under_logins(box, folder, args):
    with Logins(box):
        return load(box, folder, args)


def load(box, folder, args):
    body = folder / "body.json"
    body.write_bytes(bench.request_body(1024, "/v1/chat/completions", False))
    settings = {"mode": "open", "conns": 16, "rate": RATE, "url": f"{box.url}/v1/chat/completions", "body": body,
                "secs": args.secs, "warm": 1, "header": f"Authorization: Bearer {box.keys['API_KEY']}"}
    command = [TOOLS / "loadgen", *(f"{key}={value}" for key, value in settings.items())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=args.secs + 60, check=True)
    row = json.loads(done.stdout)
    if row["bad"]:
        raise SystemExit(f"bad answers: {row['first_bad'][:200]}")
    return row


if __name__ == "__main__":
    main()
