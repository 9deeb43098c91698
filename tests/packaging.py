#!/usr/bin/env python3
"""Checks Dockerfile, .dockerignore and conf/compose.yaml without a container engine, and that all YAML and TOML files parse.

Prints one line per rule and "N passed, N failed, N skipped" last. Needs PyYAML (tests/requirements.txt).
"""

import json
import re
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
results = {"passed": 0, "failed": 0}


def check(rule, holds, detail=""):
    results["passed" if holds else "failed"] += 1
    print(f"{'PASS' if holds else 'FAIL'} {rule}{f' -- {detail}' if detail and not holds else ''}")


def instructions(path):
    """(INSTRUCTION, arguments) of a Dockerfile, comments gone and continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    return [(word.upper(), rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in text.splitlines()) if word]


def pinned(image):
    """A digest, or a tag that is not `latest`."""
    name = image.rsplit("/", 1)[-1]
    return "@sha256:" in image or (":" in name and not name.endswith(":latest"))


def check_dockerfile():
    lines = instructions(ROOT / "Dockerfile")
    of = lambda word: [rest for name, rest in lines if name == word]
    last = max(i for i, (name, _) in enumerate(lines) if name == "FROM")
    final = lines[last:]
    stages = [rest.split() for rest in of("FROM")]
    built = {stage[2] for stage in stages if len(stage) == 3}
    copies = [rest for name, rest in final if name == "COPY"]
    users = [rest.partition(":")[0] for name, rest in final if name == "USER"]
    check("Dockerfile: multi-stage", len(stages) > 1)
    check("Dockerfile: every base image has a version", all(pinned(s[0]) or s[0] in built for s in stages), stages)
    check("Dockerfile: the final stage copies from a build stage", any("--from=" in rest for rest in copies))
    check("Dockerfile: the final stage runs nothing", not any(name == "RUN" for name, _ in final))
    check("Dockerfile: ends as a numeric user other than root", bool(users) and users[-1].isdigit() and users[-1] != "0", users)
    check("Dockerfile: has a HEALTHCHECK in exec form", any(re.search(r"CMD \[", rest) for rest in of("HEALTHCHECK")))
    check("Dockerfile: no ADD", not of("ADD"), of("ADD"))
    check("Dockerfile: no secret in ENV or ARG", not any(re.search(r"(?i)(secret|password|token|key)\w*=", r) for r in of("ENV") + of("ARG")))
    check("Dockerfile: ENTRYPOINT and CMD in exec form", all(is_json_list(rest) for rest in of("ENTRYPOINT") + of("CMD")))
    check("Dockerfile: the lock file is obeyed", all("--locked" in r for r in of("RUN") if "cargo build" in r))
    check("Dockerfile: package lists are removed", all("rm -rf /var/lib/apt/lists" in r for r in of("RUN") if "apt-get" in r))
    sources = [word for rest in of("COPY") if "--from=" not in rest for word in rest.split()[:-1]]
    check("Dockerfile: what it copies exists", all((ROOT / source).exists() for source in sources), sources)
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    check("Dockerfile: copies every member of the workspace", set(members) <= set(sources), members)
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    check(".dockerignore: shuts everything out first", [line for line in ignored if line and line[0] != "#"][0] == "*")
    check(".dockerignore: lets in what is copied", all(f"!{source}" in ignored for source in sources), sources)


def is_json_list(text):
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def check_compose():
    compose = yaml.safe_load((ROOT / "conf/compose.yaml").read_text())
    services, networks = compose["services"], compose["networks"]
    check("compose: gateway, valkey and ollama", set(services) == {"gateway", "valkey", "ollama"}, set(services))
    for name, service in services.items():
        check(f"compose: {name} has a read-only root", service.get("read_only") is True)
        check(f"compose: {name} drops all capabilities", service.get("cap_drop") == ["ALL"] and "cap_add" not in service)
        check(f"compose: {name} cannot gain privileges", "no-new-privileges:true" in service.get("security_opt", []))
        check(f"compose: {name} is not root", service.get("user", "0").partition(":")[0] not in ("0", "root"))
        check(f"compose: {name} has a health check", service["healthcheck"]["test"][0] == "CMD")
        check(f"compose: {name} has a pinned image", pinned(service["image"]), service["image"])
        check(f"compose: {name} has no host access", not {"privileged", "network_mode", "pid", "devices"} & set(service))
        check(f"compose: {name} knows its networks", set(service["networks"]) <= set(networks))
        check(f"compose: {name} mounts no engine socket", not any("docker.sock" in str(v) for v in service.get("volumes", [])))
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    check("compose: only the gateway is published, on loopback", set(published) == {"gateway"} and all(
        port.startswith("127.0.0.1:") for port in published["gateway"]), published)
    check("compose: the model's network is internal", networks["models"]["internal"] is True)
    check("compose: valkey is behind a profile", services["valkey"].get("profiles") == ["shared"])


def check_parses():
    for path in sorted([*ROOT.glob("*.toml"), *ROOT.glob(".config/*.toml"), *ROOT.glob("filters/*.toml")]):
        check(f"parses: {path.relative_to(ROOT)}", parses(tomllib.loads, path))
    for path in sorted(ROOT.glob("conf/**/*.yaml")):
        check(f"parses: {path.relative_to(ROOT)}", parses(yaml.safe_load, path))


def parses(load, path):
    try:
        load(path.read_text())
        return True
    except Exception as error:  # whatever the parser raises
        print(f"{path}: {error}")
        return False


check_dockerfile()
check_parses()
check_compose()
print(f"{results['passed']} passed, {results['failed']} failed, 0 skipped")
sys.exit(1 if results["failed"] else 0)
