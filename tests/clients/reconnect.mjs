// Stateful reconnect with the official JavaScript client, unmodified: connections to the sandbox are cut, and no
// message is lost or duplicated.

import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import test from "node:test";
import { HubConnectionBuilder, HubConnectionState, JsonHubProtocol, LogLevel } from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";
import { freshHub, rest, send, until, sandbox } from "./support.mjs";

// A TCP proxy to the sandbox's listener without TLS that can cut WebSocket connections.
async function proxy() {
  const target = new URL(sandbox.control);
  const pairs = new Set();
  const server = createServer((client) => {
    const service = connect(Number(target.port), target.hostname);
    const pair = { client, service, isWebSocket: false };
    pairs.add(pair);
    client.once("data", (head) => { pair.isWebSocket = /\r\nupgrade: websocket\r\n/i.test(head); });
    client.pipe(service).pipe(client);
    for (const socket of [client, service]) socket.on("error", () => {}).on("close", () => pairs.delete(pair));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    // Closes both ends, or only the client's: then the service still sees the connection as open.
    cut(onlyClient) {
      const cut = [...pairs].filter(({ isWebSocket }) => isWebSocket);
      for (const { client, service } of cut) {
        service.unpipe(client);
        client.unpipe(service);
        client.resetAndDestroy();
        if (!onlyClient) service.resetAndDestroy();
      }
      return cut.length;
    },
    close() {
      for (const { client, service } of pairs) { client.destroy(); service.destroy(); }
      server.close();
    },
  };
}

for (const [name, Protocol] of [["json", JsonHubProtocol], ["messagepack", MessagePackHubProtocol]]) {
  for (const onlyClient of [false, true]) {
    test(`${name}: no message is lost or duplicated when ${onlyClient ? "only the client's connection is cut" : "both connections are cut"}`, async () => {
      const hub = freshHub();
      const tcpProxy = await proxy();
      const connection = new HubConnectionBuilder()
        .withUrl(`${tcpProxy.origin}/endpoints/east?hub=${hub}&user=ann`)
        .withHubProtocol(new Protocol())
        .withStatefulReconnect()
        .configureLogging(LogLevel.None)
        .build();
      const received = [];
      let calls = 0;
      let ended;
      connection.on("t", (number) => { received.push(number); });
      connection.on("count", () => ++calls);
      connection.onclose((error) => { ended = error ?? "closed"; });
      await connection.start();
      const id = connection.connectionId;
      let cuts = 0;
      const failures = [];
      for (let number = 0; number < 200; number++) {
        await send(`${hub}/:send`, "t", number);
        if (number % 40 === 20) {
          cuts += tcpProxy.cut(onlyClient);
          // What the client sends while it is disconnected is also delivered once.
          failures.push(connection.invoke("anything").then(() => "resolved", (error) => error.message));
          const response = await rest("POST", `${hub}/connections/${id}/:invoke`, { target: "count", arguments: [] });
          assert.deepEqual([response.status, await response.json()], [200, { result: cuts }]);
        }
      }
      await until(() => received.length >= 200 || ended);
      assert.deepEqual([ended, cuts], [undefined, 5]);
      assert.deepEqual(received, Array.from({ length: 200 }, (_, number) => number));
      for (const failure of await Promise.all(failures)) assert.match(failure, /no upstream/);
      assert.deepEqual([connection.state, connection.connectionId, calls], [HubConnectionState.Connected, id, 5]);
      // It stays the same connection: listed once, and removed when it disconnects.
      const listed = async () => (await (await fetch(`${sandbox.control}/sandbox/connections?hub=${hub}`)).json()).east.count;
      assert.equal(await listed(), 1);
      await connection.stop();
      await until(async () => (await listed()) === 0);
      tcpProxy.close();
    });
  }
}

test("messages buffered for a disconnected client are bounded by its acknowledgements, and all arrive", async () => {
  const hub = freshHub();
  const tcpProxy = await proxy();
  const connection = new HubConnectionBuilder()
    .withUrl(`${tcpProxy.origin}/endpoints/east?hub=${hub}`).withStatefulReconnect().configureLogging(LogLevel.None).build();
  const received = [];
  connection.on("t", (number, text) => { received.push([number, text.length]); });
  await connection.start();
  for (let number = 0; number < 20; number++) {
    if (number === 10) tcpProxy.cut(false);
    await send(`${hub}/:send`, "t", number, "x".repeat(200_000));
  }
  await until(() => received.length >= 20);
  assert.deepEqual(received, Array.from({ length: 20 }, (_, number) => [number, 200_000]));
  await connection.stop();
  tcpProxy.close();
});
