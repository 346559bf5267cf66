"""Runs a gateway with many tenants and prints what a tenant costs. Standard library only.

Each tenant has an endpoint of its own, in a file of `tenants.d`, and they share one application and one route. The sandbox issues
their tokens. The upstream of benches/peers stands for all endpoints, over TLS: it takes less CPU time for a request than the gateway,
so that it does not hold the gateway up. For each number of tenants, a new sandbox and a new gateway with one worker run through
these steps:

1. Start: from the start of the process to its ready file, and to status 200 of /readyz. Memory before the first call.
2. Full load at once: callers call every tenant once. Calls that fail; requests to Entra and the metadata service since the start,
   and in the fullest second, from the sandbox's journals, every 50 ms.
3. CPU per request over 1,000 tenants in turn against one tenant, over warm connections. Rounds of both alternate; the ratio is the
   median of rounds. At full load, connections of the load generator of benches/peers together call the tenants in turn. This is what
   a request costs if nothing else runs on the two cores, so that the worker is rarely idle. One call after the other, the worker
   waits before each call, so that most of the cost is that of the kernel's wake-up, which depends on the host.
4. /metrics: its size, and the median time of five scrapes.
5. Reload: CPU of a reload (SIGHUP) that adds a tenant by a file, until it is counted; with a probe that calls one tenant all the
   time, the time in which the worker adopts the new configuration and lets go of the old one, by its log, and the slowest call,
   which also waits for the core that the reload itself occupies. Median of three.
6. Memory once all connections to endpoints are closed, with the token of each tenant.

Memory is the resident memory of the gateway. A tenant's is the difference to that with one tenant. CPU time is the scheduler's run
time of all threads. On a machine with two cores, the gateway has core 0 and all others core 1.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "peers"))
from compare import end, processor  # noqa: E402

BODY = b'{"target":"hello","arguments":["world"]}'
CLIENT_ID = "44444444-dddd-4ddd-8ddd-444444444444"
IDENTITY_ID = "66666666-ffff-4fff-8fff-666666666666"
HOME = "11111111-aaaa-4aaa-8aaa-111111111111"
# Idle connections to endpoints close after this time, so that memory can be measured without them.
IDLE_SECONDS = 20

DESCRIPTION = """
[tenants.home]
id = "{home}"

[applications.saas]
client_id = "{client_id}"
tenant = "home"
secrets = [{{ value = "not-a-secret" }}]
federated = [{{ identity = "gateway" }}]

[managed_identities.gateway]
tenant = "home"
client_id = "{identity}"

[tenant_groups.t]
count = {count}
application = "saas"
"""

CONFIG = """
include = ["tenants.d/*.toml"]

[listeners.default]
bind = "127.0.0.1:0"

[admin]
bind = "127.0.0.1:0"

[credentials.saas]
kind = "{kind}"
client_id = "{client_id}"
{proof}
cloud = "custom"
authority = "{entra}"
ca_file = "files/ca.pem"

[[routes]]
name = "tenants"
match = {{ hub = "{{endpoint}}_*" }}

[logging]
filter = "warn,signalr_gateway::gateway=info,signalr_gateway::proxy::worker=debug"
access = "off"

[process]
workers = 1

[forwarding]
client_address = true

[limits]
queue_time = "30s"
{more}
"""

TENANT = """[endpoints.{name}]
url = "{url}"
credential = "saas"
tenant = "{tenant}.onmicrosoft.com"
ca_file = "upstream/ca.pem"
pool = {{ idle_timeout = "{idle}s" }}
"""


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows = []
    for count in options.counts:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tenants.")))
            rows.append(Run(options, count, folder, stack).measure())
    print(report(options, rows))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", type=Path, required=True, help="the gateway's binary, with the sandbox")
    parser.add_argument("--kit", type=Path, required=True, help="the binary of benches/peers/kit")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 100, 1000, 10000], help="numbers of tenants")
    parser.add_argument("--callers", type=int, default=256, help="concurrent callers of the full load")
    parser.add_argument("--rounds", type=int, default=5, help="of the CPU per request, one call after the other")
    parser.add_argument("--calls", type=int, default=2000, help="in each of these rounds")
    parser.add_argument("--load-rounds", type=int, default=15, help="of the CPU per request at full load")
    parser.add_argument("--load-seconds", type=float, default=0.5, help="measured in each of these rounds")
    parser.add_argument("--connections", type=int, default=32, help="of the load generator")
    parser.add_argument("--federated", action="store_true", help="the application authenticates by a managed identity, not a secret")
    parser.add_argument("--more", default="", help="TOML that is appended to the gateway's configuration")
    return parser.parse_args()


class Run:
    """One sandbox and one gateway."""

    def __init__(self, options, count, folder, stack):
        self.options, self.count, self.folder, self.stack = options, count, folder, stack
        two_cores = len(os.sched_getaffinity(0)) > 1
        self.gateway_core, self.other_core = ({0}, {1}) if two_cores else (None, None)
        if self.other_core:
            os.sched_setaffinity(0, self.other_core)
        self.row = {"count": count, "load_busy": []}

    def measure(self):
        self.note("starts")
        self.start_sandbox()
        self.start_upstream()
        self.write_config()
        with self.sampled_requests():
            self.start_gateway()
            time.sleep(1)
            self.row["unused"] = self.memory()
            self.full_load()
        self.cpu_at_full_load()
        self.cpu_one_after_the_other()
        self.scrape()
        self.reload()
        self.wait_for_closed_connections()
        self.row["used"] = self.memory()
        return self.row

    def note(self, text):
        print(f"{self.count} tenants: {text}", file=sys.stderr)

    def start_sandbox(self):
        description = DESCRIPTION.format(count=self.count, home=HOME, client_id=CLIENT_ID, identity=IDENTITY_ID)
        (self.folder / "sandbox.toml").write_text(description)
        arguments = ["sandbox", "--config", "sandbox.toml", "--files", "files", "--no-gateway"]
        began = time.monotonic()
        self.sandbox, self.services = self.start("sandbox", arguments, self.other_core)
        self.row["sandbox_start"] = time.monotonic() - began
        self.row["sandbox_memory"] = memory(self.sandbox)

    def start_upstream(self):
        (self.folder / "upstream").mkdir()
        command = [str(self.options.kit.resolve()), "upstream", "--folder", "upstream"]
        pin = (lambda: os.sched_setaffinity(0, self.other_core)) if self.other_core else None
        log = self.stack.enter_context(open(self.folder / "upstream.log", "wb"))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        upstream = subprocess.Popen(command, cwd=self.folder, preexec_fn=pin, **pipes)
        self.stack.callback(end, upstream)
        self.upstream = json.loads(upstream.stdout.readline())["tls"]

    def write_config(self):
        imds = self.services["imds"]
        secret = ("client_secret", 'secret = { file = "files/saas-secret" }')
        federated = (
            "federated",
            f'assertion = {{ source = "managed_identity", client_id = "{IDENTITY_ID}", imds_endpoint = "{imds}" }}',
        )
        kind, proof = federated if self.options.federated else secret
        entra, more = self.services["entra"], self.options.more
        config = CONFIG.format(kind=kind, proof=proof, client_id=CLIENT_ID, entra=entra, more=more)
        (self.folder / "gateway.toml").write_text(config)
        (self.folder / "tenants.d").mkdir()
        for name in self.services["endpoints"]:
            self.write_tenant(name, name)

    def write_tenant(self, name, tenant):
        """Writes the file of an endpoint of a tenant."""
        text = TENANT.format(name=name, tenant=tenant, url=f"https://{self.upstream}", idle=IDLE_SECONDS)
        (self.folder / "tenants.d" / f"{name}.toml").write_text(text)

    def start_gateway(self):
        began = time.monotonic()
        self.gateway, ready = self.start("gateway", ["run", "--config", "gateway.toml"], self.gateway_core)
        self.row["ready"] = time.monotonic() - began
        self.listener = address(ready["listeners"]["default"])
        self.admin = address(ready["admin"])
        while get(self.admin, "/readyz")[0] != 200:
            if time.monotonic() - began > 60:
                sys.exit(f"/readyz is not 200 after 60 s: {get(self.admin, '/readyz')[1]}")
            time.sleep(0.01)
        self.row["readyz"] = time.monotonic() - began

    def start(self, name, arguments, core):
        """Starts the program, which ends with `stack`, and returns it with its ready file."""
        ready = self.folder / f"{name}.ready"
        log = self.stack.enter_context(open(self.folder / f"{name}.log", "ab"))
        command = [str(self.options.gateway.resolve()), *arguments, "--ready-file", str(ready)]
        pin = (lambda: os.sched_setaffinity(0, core)) if core else None
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, preexec_fn=pin
        )
        self.stack.callback(end, process)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                return process, json.loads(ready.read_bytes())
            time.sleep(0.002)
        sys.exit(f"{name} does not start:\n{(self.folder / f'{name}.log').read_text(errors='replace')[-2000:]}")

    def memory(self):
        return memory(self.gateway)

    def names(self, limit=None):
        return list(self.services["endpoints"])[:limit]

    def full_load(self):
        """Calls every tenant once, by many callers at a time."""
        names, lock = iter(self.names()), threading.Lock()
        failed = []

        def call_all():
            with Caller(self.listener) as caller:
                while True:
                    with lock:
                        name = next(names, None)
                    if name is None:
                        return
                    status = caller.call(name)
                    if status != 202:
                        failed.append((name, status))

        callers = [threading.Thread(target=call_all) for _ in range(min(self.options.callers, self.count))]
        began = time.monotonic()
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
        self.row["full_load"] = time.monotonic() - began
        self.row["failed"] = len(failed)
        if failed:
            self.note(f"{len(failed)} calls failed, such as {failed[:3]}")

    @contextlib.contextmanager
    def sampled_requests(self):
        """Counts the requests to Entra and the metadata service until it ends."""
        samples, stop = [(time.monotonic(), self.requests_to_identity())], threading.Event()

        def sample():
            while not stop.wait(0.05):
                samples.append((time.monotonic(), self.requests_to_identity()))

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            yield
        finally:
            stop.set()
            sampler.join()
        samples.append((time.monotonic(), self.requests_to_identity()))
        for index, server in enumerate(("entra", "imds")):
            self.row[server] = samples[-1][1][index] - samples[0][1][index]
            self.row[f"{server}_per_second"] = fullest_second([(at, counts[index]) for at, counts in samples])

    def requests_to_identity(self):
        """Returns how many requests Entra and the metadata service have received."""
        control = address(self.services["control"])
        after = 2**62
        return [
            json.loads(get(control, f"/sandbox/journal?server={server}&after={after}")[1])["received"] for server in ("entra", "imds")
        ]

    def cpu_at_full_load(self):
        many, one = self.targets("many", self.names(1000)), self.targets("one", self.names(1))
        ratios, costs = [], []
        # Twice, so that the rounds find all the connections that they need.
        for targets in (many, one, many, one):
            self.load(targets)
        self.row["load_busy"] = []
        before = self.opened_connections()
        for number in range(self.options.load_rounds):
            order = ("many", "one") if number % 2 else ("one", "many")
            loads = {name: self.load({"many": many, "one": one}[name]) for name in order}
            ratios.append(loads["many"] / loads["one"])
            costs.append((loads["many"], loads["one"]))
        self.row["load_opened"] = self.opened_connections() - before
        self.row["load_many"], self.row["load_one"] = (statistics.median(column) for column in zip(*costs))
        self.row["load_ratio"] = statistics.median(ratios)

    def targets(self, label, names):
        """Writes the targets of broadcasts to these tenants for the load generator. Returns the file."""
        file = self.folder / f"{label}.targets"
        file.write_text("".join(f"{target(name)}\n" for name in names))
        return file

    def load(self, targets):
        """Returns the CPU time of each call of the load generator, in microseconds."""
        host, port = self.listener
        arguments = {
            "address": f"{host}:{port}", "connections": self.options.connections, "body": len(BODY), "warmup": 0.3,
            "seconds": self.options.load_seconds, "processes": self.gateway.pid, "targets": targets,
        }
        command = [str(self.options.kit.resolve()), "load", *(str(word) for name, value in arguments.items() for word in (f"--{name}", value))]
        pin = (lambda: os.sched_setaffinity(0, self.other_core)) if self.other_core else None
        # The load generator ends when its standard input is closed.
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=pin) as process:
            output = process.stdout.read()
        result = json.loads(output or '{"requests": 0, "reason": "no output"}')
        if not result["requests"] or result["errors"]:
            sys.exit(f"the load failed: {result['reason']}")
        self.row["load_busy"].append(result["cpu_nanoseconds"] / 1e9 / result["seconds"])
        return result["cpu_nanoseconds"] / 1000 / result["requests"]

    def opened_connections(self):
        """Returns how many connections to endpoints were opened since the start."""
        return self.total("signalr_gateway_upstream_connects_total")

    def cpu_one_after_the_other(self):
        many, one = self.names(1000), self.names(1)
        with Caller(self.listener) as caller:
            ratios, costs = [], []
            self.calls(caller, many, len(many))
            for _ in range(self.options.rounds):
                rounds = [self.calls(caller, names, max(self.options.calls, len(names))) for names in (many, one)]
                ratios.append(rounds[0] / rounds[1])
                costs.append(rounds)
        self.row["cpu_many"], self.row["cpu_one"] = (statistics.median(column) for column in zip(*costs))
        self.row["cpu_ratio"] = statistics.median(ratios)

    def calls(self, caller, names, number):
        """Returns the CPU time of each of a number of calls, in microseconds."""
        before = cpu(self.gateway)
        for index in range(number):
            status = caller.call(names[index % len(names)])
            if status != 202:
                sys.exit(f"a call to {names[index % len(names)]} was answered {status}")
        return (cpu(self.gateway) - before) * 1e6 / number

    def scrape(self):
        times = []
        for _ in range(5):
            began = time.monotonic()
            _, body = get(self.admin, "/metrics")
            times.append(time.monotonic() - began)
        self.row["metrics_bytes"], self.row["metrics_time"] = len(body), statistics.median(times)

    def reload(self):
        costs, pauses, slow_calls = [], [], []
        log = self.folder / "gateway.log"
        for number in range(3):
            stop, slowest = threading.Event(), [0.0]

            def probe():
                with Caller(self.listener) as caller:
                    name = self.names(1)[0]
                    while not stop.is_set():
                        began = time.monotonic()
                        caller.call(name)
                        slowest[0] = max(slowest[0], time.monotonic() - began)

            # Without the probe, so that its calls do not count.
            costs.append(self.reload_once(f"cost{number}"))
            thread = threading.Thread(target=probe)
            offset = log.stat().st_size
            thread.start()
            self.reload_once(f"pause{number}")
            stop.set()
            thread.join()
            slow_calls.append(slowest[0])
            pauses.append(sum(map(int, re.findall(r'took_us\D*(\d+)', log.read_text(errors="replace")[offset:]))) / 1e6)
        self.row["reload_cpu"], self.row["reload_pause"] = statistics.median(costs), statistics.median(pauses)
        self.row["reload_call"] = statistics.median(slow_calls)

    def reload_once(self, name):
        """Adds a tenant by a file. Returns the CPU time of the reload."""
        self.write_tenant(name, self.names(1)[0])
        # A request for status or metrics would cost CPU time; the log does not.
        log = self.folder / "gateway.log"
        offset = log.stat().st_size
        before = cpu(self.gateway)
        self.gateway.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while "the configuration was reloaded" not in log.read_bytes()[offset:].decode(errors="replace"):
            if time.monotonic() > deadline:
                sys.exit(f"no reload within 30 s:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        # What follows a reload, such as letting go of removed parts.
        time.sleep(0.3)
        return cpu(self.gateway) - before

    def open_connections(self):
        """Returns the number of connections to endpoints."""
        return self.total("signalr_gateway_upstream_connections")

    def total(self, metric):
        """Returns the sum of all series of a metric."""
        lines = get(self.admin, "/metrics")[1].decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{metric}{{"))

    def wait_for_closed_connections(self):
        self.note("waits until connections to endpoints are closed")
        deadline = time.monotonic() + IDLE_SECONDS + 30
        while self.open_connections() > 0:
            if time.monotonic() > deadline:
                self.note("connections to endpoints are still open")
                break
            time.sleep(1)
        # A thread that encoded metrics ends after ten seconds without work, and frees what it kept.
        time.sleep(12)


class Caller:
    """A persistent connection to the gateway."""

    def __init__(self, at):
        self.at = at

    def __enter__(self):
        self.socket = socket.create_connection(self.at, timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(self, *_):
        self.socket.close()

    def call(self, name):
        """Broadcasts to a hub of an endpoint. Returns the status."""
        head = f"POST {target(name)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
        self.socket.sendall(head.encode() + BODY)
        response = b""
        while b"\r\n\r\n" not in response:
            received = self.socket.recv(65536)
            if not received:
                raise ConnectionError("the gateway closed the connection")
            response += received
        head, _, body = response.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        while len(body) < length:
            body += self.socket.recv(65536)
        return int(head.split(b" ", 2)[1])


def target(name):
    """Returns the target of a broadcast to a hub of a tenant."""
    return f"/api/hubs/{name}_chat/:send?api-version=2022-11-01"


def get(at, target):
    """Returns the status and body of a GET request."""
    with socket.create_connection(at, timeout=60) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        response = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    head, _, body = response.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        body = unchunk(body)
    return int(head.split(b" ", 2)[1]), body


def unchunk(body):
    pieces = []
    while True:
        size, _, rest = body.partition(b"\r\n")
        size = int(size, 16)
        if size == 0:
            return b"".join(pieces)
        pieces.append(rest[:size])
        body = rest[size + 2 :]


def address(text):
    host, _, port = text.rpartition("/")[2].rpartition(":")
    return host, int(port)


def fullest_second(samples):
    """Returns the largest number of requests within one second, from times and counts."""
    best = 0
    for index, (began, first) in enumerate(samples):
        within = [count for at, count in samples[index:] if at - began <= 1]
        best = max(best, within[-1] - first)
    return best


def memory(process):
    """Returns the resident memory in KiB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def cpu(process):
    """Returns the CPU time of all threads, in seconds."""
    total = 0
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def report(options, rows):
    base = rows[0]

    def per_tenant(row, key):
        if row["count"] == base["count"]:
            return "-"
        return f"{(row[key] - base[key]) / (row['count'] - base['count']):.1f} KiB"

    lines = {
        "memory of the gateway, unused": lambda row: f"{row['unused'] / 1024:.1f} MiB",
        "of it a tenant, unused": lambda row: per_tenant(row, "unused"),
        "a tenant with a token, used, connections closed": lambda row: per_tenant(row, "used"),
        "start to ready file": lambda row: f"{row['ready'] * 1000:.0f} ms",
        "start to /readyz": lambda row: f"{row['readyz'] * 1000:.0f} ms",
        "CPU of a reload that adds a tenant": lambda row: f"{row['reload_cpu'] * 1000:.0f} ms",
        "pause of the worker for it": lambda row: f"{row['reload_pause'] * 1000:.1f} ms",
        "slowest call during a reload": lambda row: f"{row['reload_call'] * 1000:.1f} ms",
        "CPU per request at full load, one tenant": lambda row: f"{row['load_one']:.1f} us",
        "CPU per request at full load, up to 1,000 in turn": lambda row: f"{row['load_many']:.1f} us",
        "ratio of the two": lambda row: f"{row['load_ratio']:.2f}",
        "of it: worker busy, connections to endpoints opened": lambda row: (
            f"{statistics.median(row['load_busy']):.0%}, {row['load_opened']:.0f}"
        ),
        "CPU per request, one call after the other, one tenant": lambda row: f"{row['cpu_one']:.1f} us",
        "CPU per request, one call after the other, up to 1,000 in turn": lambda row: f"{row['cpu_many']:.1f} us",
        "ratio of these two": lambda row: f"{row['cpu_ratio']:.2f}",
        "every tenant called once, in": lambda row: f"{row['full_load']:.1f} s",
        "of it failed": lambda row: f"{row['failed']}",
        "requests to Entra, all / in one second": lambda row: f"{row['entra']} / {row['entra_per_second']}",
        "requests to IMDS, all / in one second": lambda row: f"{row['imds']} / {row['imds_per_second']}",
        "/metrics": lambda row: f"{row['metrics_bytes'] / 1024:.0f} KiB, {row['metrics_time'] * 1000:.0f} ms",
        "sandbox: start, memory": lambda row: f"{row['sandbox_start']:.1f} s, {row['sandbox_memory'] / 1024:.0f} MiB",
    }
    proof = "a managed identity" if options.federated else "a client secret"
    return "\n".join([
        f"{time.strftime('%F')}, {processor()}, {os.cpu_count()} cores, Linux {platform.release()}; one worker, {proof}, "
        f"{options.callers} callers; full load: {options.connections} connections, {options.load_rounds} rounds of "
        f"{options.load_seconds:g} s; one call after the other: {options.rounds} rounds of {options.calls} calls.",
        "",
        "| tenants | " + " | ".join(f"{row['count']:,}" for row in rows) + " |",
        "| --- |" + " ---: |" * len(rows),
        *(f"| {name} | " + " | ".join(value(row) for row in rows) + " |" for name, value in lines.items()),
    ])


if __name__ == "__main__":
    main()
