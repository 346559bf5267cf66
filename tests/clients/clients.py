"""pysignalr and signalrcore, unmodified, against a sandbox: they receive what REST calls through the gateway send."""

import asyncio
import json
import os
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SANDBOX = json.load(open(os.environ["SANDBOX"]))
# Every TLS context created later reads this; signalrcore creates one when it is imported.
os.environ["SSL_CERT_FILE"] = SANDBOX["ca"]

from pysignalr.client import SignalRClient  # noqa: E402
from pysignalr.protocol.json import JSONProtocol  # noqa: E402
from pysignalr.protocol.messagepack import MessagepackProtocol  # noqa: E402
from signalrcore.hub_connection_builder import HubConnectionBuilder  # noqa: E402
from signalrcore.protocol.messagepack_protocol import MessagePackHubProtocol  # noqa: E402

# Python's integers have any size, so numbers larger than a double can represent must arrive unchanged.
ARGUMENTS = [18446744073709551615, -9223372036854775808, 1.5, None, True, "grüße 💡", {"b": [1], "a": None}]


def post(path, body=None):
    url = f"{SANDBOX['gateway']}/api/hubs/{path}{'&' if '?' in path else '?'}api-version=2024-12-01"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.status, response.read()


def token(hub):
    return json.loads(post(f"{hub}/:generateToken?userId=ann")[1])["token"]


def client_url(hub):
    return f"{SANDBOX['endpoints']['east']}/client/?hub={hub}"


class Application(BaseHTTPRequestHandler):
    """The `POST /HUB/negotiate` of an application, which redirects clients to the service, as with Azure SignalR.

    pysignalr negotiates without a token, so it can obtain one only from such a redirect."""

    def do_POST(self):  # noqa: N802 - the name is the base class's
        hub = self.path.split("/")[1]
        body = json.dumps({"url": client_url(hub), "accessToken": token(hub)}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


async def with_pysignalr(hub, protocol):
    application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=application.serve_forever, daemon=True).start()
    client = SignalRClient(f"http://127.0.0.1:{application.server_port}/{hub}", protocol=protocol)
    opened, messages = asyncio.Event(), asyncio.Queue()

    async def on_open():
        opened.set()

    async def on_message(arguments):
        await messages.put(arguments)

    client.on_open(on_open)
    client.on("t", on_message)
    running = asyncio.create_task(client.run())
    await asyncio.wait_for(opened.wait(), 20)
    for number in range(20):
        await asyncio.to_thread(post, f"{hub}/users/ann/:send", {"target": "t", "arguments": [number, *ARGUMENTS]})
    received = [await asyncio.wait_for(messages.get(), 20) for _ in range(20)]
    running.cancel()
    application.shutdown()
    assert received == [[number, *ARGUMENTS] for number in range(20)], received
    assert messages.empty()


def with_signalrcore(hub, protocol):
    builder = HubConnectionBuilder().with_url(
        client_url(hub), options={"access_token_factory": lambda: token(hub)})
    if protocol:
        builder = builder.with_hub_protocol(protocol)
    connection = builder.build()
    opened, done, messages = threading.Event(), threading.Event(), []

    def on_message(arguments):
        messages.append(arguments)
        if len(messages) == 20:
            done.set()

    connection.on_open(opened.set)
    connection.on("t", on_message)
    connection.start()
    assert opened.wait(20), "signalrcore did not connect"
    for number in range(20):
        post(f"{hub}/users/ann/:send", {"target": "t", "arguments": [number, *ARGUMENTS]})
    assert done.wait(20), messages
    connection.stop()
    assert messages == [[number, *ARGUMENTS] for number in range(20)], messages


def main():
    checks = [
        ("pysignalr, json", lambda: asyncio.run(with_pysignalr("pyJson", JSONProtocol()))),
        ("pysignalr, messagepack", lambda: asyncio.run(with_pysignalr("pyPack", MessagepackProtocol()))),
        ("signalrcore, json", lambda: with_signalrcore("coreJson", None)),
        ("signalrcore, messagepack", lambda: with_signalrcore("corePack", MessagePackHubProtocol())),
    ]
    failed = 0
    for name, check in checks:
        try:
            check()
            print(f"ok      {name}", flush=True)
        except Exception as error:  # noqa: BLE001 - a failed check does not stop the others
            failed += 1
            print(f"FAILED  {name}: {error!r}", flush=True)
    # signalrcore leaves threads running that would keep the process alive.
    os._exit(1 if failed else 0)


if __name__ == "__main__":
    main()
