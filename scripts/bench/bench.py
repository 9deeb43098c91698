#!/usr/bin/env python3
"""nginx, a bare Pingora proxy and Portcullis side by side on one machine: same mock upstream, same minutes, same core.

    bench.py                                      builds what it needs, measures, prints Markdown tables
    bench.py --rounds 1 --secs 2 --tests load     a short look
    bench.py --gateway 'CMD ARG...' --gateway-port N [--header 'Authorization: Bearer sk_…'] --upstream-port M
                                                  another gateway, set up to forward to 127.0.0.1:M (kind openai, model mock)

Generator and mock run on the first core, the proxy under test alone on the second, with one worker thread. Every round
measures all peers in the same order (A B A B …); the tables hold medians over the rounds, and `spread` is (max - min) /
median of the CPU figure. Ratios carry from machine to machine, absolute figures do not. "+" is added over `direct`, the mock
itself. Where `core used` is under about 93 % the generator set the rate, not the peer: compare CPU there. `bad` must be 0.
Read only figures of a quiet machine, with a spread under 10 %.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))
import sandbox  # noqa: E402 (beside this folder)

CACHE = Path(os.environ.get("PORTCULLIS_CACHE") or Path.home() / ".cache/portcullis")
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or CACHE)
TOOLS = TARGET / "release"
PROSE = ("Please summarise the following paragraph about delivery windows, shipping rates and customer support in three "
         "bullet points, and name the two dates on which the new prices begin. ")

# name: (bytes of the request, path, generator settings, mock settings)
TESTS = {
    "load": (1024, "/v1/chat/completions", {"mode": "closed", "conns": 64}, {}),
    "load10k": (10_240, "/v1/chat/completions", {"mode": "closed", "conns": 64}, {}),
    "load100k": (102_400, "/v1/chat/completions", {"mode": "closed", "conns": 64}, {}),
    "embed": (1024, "/v1/embeddings", {"mode": "closed", "conns": 64}, {}),
    "latency": (1024, "/v1/chat/completions", {"mode": "open", "conns": 64, "rate": 1000}, {}),
    "stream": (1024, "/v1/chat/completions", {"mode": "stream", "conns": 200}, {"chunks": 40, "delay_us": 50_000}),
    "open1000": (1024, "/v1/chat/completions", {"mode": "stream", "conns": 1000}, {"chunks": 40, "delay_us": 500_000}),
}


class Peer:
    """What is measured. Without a command it is the mock itself."""

    def __init__(self, name, port, command=None, headers=()):
        self.name, self.port, self.command, self.headers = name, port, command, list(headers)


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    build(args)
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as folder:
        folder = Path(folder)
        folder.chmod(0o755)  # nginx's worker is another user when root starts it
        mock_port = args.upstream_port or sandbox.free_ports(1)[0]
        mock = spawn([TOOLS / "mock_upstream", f"127.0.0.1:{mock_port}"], args.cores[0], folder / "mock.log")
        try:
            wait_for_port(mock_port, mock, folder / "mock.log")
            rows = measure_all(peers(args, folder, mock_port), mock, mock_port, args, folder)
        finally:
            stop(mock)
    if args.out:
        args.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print_tables(rows, args)
    return 1 if any(row["bad"] for row in rows) else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--gateway", help="the command of the gateway under test (default: the release build of this tree)")
    option("--gateway-port", type=int)
    option("--upstream-port", type=int, help="of the mock (default: a free one)")
    option("--header", action="append", default=[], help="sent to the gateway under test")
    option("--peers", default="direct,nginx,pingora,portcullis")
    option("--tests", default=",".join(TESTS))
    option("--rounds", type=int, default=3)
    option("--secs", type=float, default=5)
    option("--warm", type=float, default=2)
    option("--built", action="store_true", help="take the programs as they are in the target directory")
    option("--out", type=Path, help="keep the records, one JSON object a line")
    args = parser.parse_args()
    args.peers, args.tests = args.peers.split(","), args.tests.split(",")
    args.cores = sorted(os.sched_getaffinity(0))[:2]
    if unknown := set(args.tests) - set(TESTS):
        parser.error(f"unknown tests: {unknown}; there are {', '.join(TESTS)}")
    if bool(args.gateway) != bool(args.gateway_port):
        parser.error("--gateway and --gateway-port go together")
    if args.gateway and not args.upstream_port:
        parser.error("--gateway needs --upstream-port, the one that it forwards to")
    if len(args.cores) < 2:
        parser.error("two cores are needed")
    return args


def build(args):
    if args.built:
        return
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=HERE, env=environment, check=True)
    if "portcullis" in args.peers and not args.gateway:
        subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, env=environment, check=True)


def peers(args, folder, mock_port):
    found = []
    for name in args.peers:
        port = sandbox.free_ports(1)[0]
        if name == "direct":
            found.append(Peer(name, mock_port))
        elif name == "pingora":
            found.append(Peer(name, port, [TOOLS / "pingora_plain", f"127.0.0.1:{port}", f"127.0.0.1:{mock_port}"]))
        elif name == "nginx":
            nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
            if not nginx:
                print("nginx is not installed and left out (apt-get install nginx-light)")
                continue
            found.append(Peer(name, port, [nginx, "-p", folder, "-e", folder / "nginx.err", "-c", nginx_config(folder, port, mock_port)]))
        elif args.gateway:
            found.append(Peer(name, args.gateway_port, shlex.split(args.gateway), args.header))
        else:
            home = folder / "portcullis"
            home.mkdir()
            box = sandbox.Sandbox(TOOLS / "portcullis", HERE / "gateway.yaml.in", home,
                                  {"UPSTREAM": f"http://127.0.0.1:{mock_port}"}, {"API_KEY": "alice"})
            found.append(Peer(name, box.port, box.command, [f"Authorization: Bearer {box.keys['API_KEY']}"]))
    return found


def nginx_config(folder, port, mock_port):
    text = (HERE / "nginx.conf.in").read_text()
    for word, value in {"DIR": folder, "PORT": port, "UPSTREAM_PORT": mock_port}.items():
        text = text.replace(f"@{word}@", str(value))
    path = folder / "nginx.conf"
    path.write_text(text)
    return path


def measure_all(all_peers, mock, mock_port, args, folder):
    if os.getloadavg()[0] > 0.5:
        print(f"load average {os.getloadavg()[0]:.1f} before the start: other programs are busy, figures will be noisy")
    rows = []
    for number in range(args.rounds):
        for peer in all_peers:
            log = folder / f"{peer.name}.log"
            process = spawn(peer.command, args.cores[1], log) if peer.command else None
            try:
                wait_for_port(peer.port, process or mock, log)
                for test in args.tests:
                    row = measure(peer, test, (process or mock).pid, mock_port, args, folder)
                    rows.append({"peer": peer.name, "test": test, "round": number, **row})
                    print(f"round {number} {peer.name:10} {test:9} {row['rps']:9.0f}/s  bad {row['bad']}", file=sys.stderr)
                    if row["bad"]:
                        print(f"  first bad answer: {row['first_bad'][:200]}", file=sys.stderr)
            finally:
                if process:
                    stop(process)
    return rows


def measure(peer, test, pid, mock_port, args, folder):
    size, path, load, mock = TESTS[test]
    body = folder / f"{test}.json"
    body.write_bytes(request_body(size, path, load["mode"] == "stream"))
    before = mock_set(mock_port, {"chunks": 40, "delay_us": 50_000, **mock})
    pids = tree(pid)
    idle_kb = sum(rss_kb(p) for p in pids)
    settings = {**load, "url": f"http://127.0.0.1:{peer.port}{path}", "body": body, "secs": args.secs, "warm": args.warm}
    command = ["taskset", "-c", str(args.cores[0]), TOOLS / "loadgen", *(f"{k}={v}" for k, v in settings.items()),
               *(f"pid={p}" for p in pids), *(f"header={h}" for h in peer.headers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=args.secs + args.warm + 120)
    if done.returncode:
        raise SystemExit(f"loadgen failed: {done.stderr}")
    row = json.loads(done.stdout)
    after = mock_set(mock_port, {})
    row["seen"] = after["served"] - before["served"]
    if row["seen"] < row["done"]:
        row["bad"], row["first_bad"] = row["bad"] or 1, "the upstream saw fewer requests than were answered"
    return {**row, "idle_kb": idle_kb}


def request_body(size, path, stream):
    """A request of about this size in the compact form that real clients send."""
    def body(text):
        if path.endswith("/embeddings"):
            return {"model": "mock", "input": text}
        messages = [{"role": "system", "content": "You answer in short sentences."}, {"role": "user", "content": text}]
        return {"model": "mock", "messages": messages, "max_tokens": 256, **({"stream": True} if stream else {})}

    encode = lambda text: json.dumps(body(text), separators=(",", ":")).encode()
    length = size - len(encode(""))
    return encode((PROSE * (length // len(PROSE) + 1))[:length])


def mock_set(port, settings):
    query = "&".join(f"{key}={value}" for key, value in settings.items())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/mock/set?{query}", timeout=20) as response:
        return json.load(response)


def spawn(command, core, log):
    with open(log, "w") as out:
        return subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], cwd=log.parent, stdin=subprocess.DEVNULL,
                                stdout=out, stderr=out, start_new_session=True)


def stop(process):
    """SIGKILL for the whole session: there is nothing to drain."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def wait_for_port(port, process, log, seconds=30):
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"port {port} does not answer:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.1)


def tree(pid):
    """The process and all its descendants."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            pids += tree(int(child))
    return pids


def rss_kb(pid):
    return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))


# --- tables ------------------------------------------------------------------------------------------------------------


def print_tables(rows, args):
    for test in args.tests:
        of_test = [row for row in rows if row["test"] == test]
        mode = TESTS[test][2]["mode"]
        columns = {"closed": load_columns, "open": latency_columns, "stream": stream_columns}[mode]
        table = []
        for name in dict.fromkeys(row["peer"] for row in of_test):
            mine = [row for row in of_test if row["peer"] == name]
            cells = columns(mine, lambda anchor: paired(mine, of_test, anchor))
            table.append({"peer": name, **cells, "RSS MiB": mib(median(row["rss_kb"] for row in mine)),
                          "bad": str(sum(row["bad"] for row in mine))})
        print(f"\n### {test}: {TESTS[test][0]} bytes to {TESTS[test][1]}\n")
        print("| " + " | ".join(table[0]) + " |\n|" + "---|" * len(table[0]))
        for cells in table:
            print("| " + " | ".join(cells.values()) + " |")


def paired(mine, rows, anchor):
    """(row, row of the anchor in the same round), for ratios and differences."""
    anchors = {row["round"]: row for row in rows if row["peer"] == anchor}
    return [(row, anchors[row["round"]]) for row in mine if row["round"] in anchors]


def load_columns(mine, pairs):
    return {**cpu_columns(mine, pairs, "cpu_us_per_request"), "requests/s": figure(median(row["rps"] for row in mine)),
            "core used": f"{median(row['cpu_share'] for row in mine):.0%}"}


def latency_columns(mine, pairs):
    return {**cpu_columns(mine, pairs, "cpu_us_per_request"), "p50 µs": quantile(mine, "latency", "p50"),
            "+p50": added(pairs, "latency", "p50"), "p99 µs": quantile(mine, "latency", "p99"), "+p99": added(pairs, "latency", "p99")}


def stream_columns(mine, pairs):
    grown = median(row["rss_kb"] - row["idle_kb"] for row in mine)
    return {**cpu_columns(mine, pairs, "cpu_us_per_chunk"), "TTFT p50 µs": quantile(mine, "first_chunk", "p50"),
            "+TTFT p50": added(pairs, "first_chunk", "p50"), "+TTFT p99": added(pairs, "first_chunk", "p99"),
            "+chunk p50": added(pairs, "transit", "p50"), "+chunk p99": added(pairs, "transit", "p99"),
            "grew by MiB": mib(grown)}


def cpu_columns(mine, pairs, key):
    values = [row[key] for row in mine if row[key]]
    unit = key.rsplit("_", 1)[1]
    ratio = lambda anchor: figure(median(a[key] / b[key] for a, b in pairs(anchor) if a[key] and b[key]))
    return {f"CPU µs/{unit}": figure(median(values)), "spread": f"{(max(values) - min(values)) / median(values):.0%}" if values else "",
            "× nginx": ratio("nginx"), "× pingora": ratio("pingora")}


def quantile(mine, what, which):
    return figure(median(row[what][which] for row in mine))


def added(pairs, what, which):
    return figure(median(a[what][which] - b[what][which] for a, b in pairs("direct")))


def median(values):
    values = list(values)
    return statistics.median(values) if values else None


def figure(value):
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def mib(kilobytes):
    return figure(kilobytes / 1024)


if __name__ == "__main__":
    sys.exit(main())
