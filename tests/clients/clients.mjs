// The official JavaScript client, unmodified, in node: every transport and hub protocol, against a sandbox. Messages
// are sent by REST through the gateway. `run` starts the sandbox and provides its addresses.

import assert from "node:assert/strict";
import test from "node:test";
import { HttpTransportType, HubConnectionBuilder, JsonHubProtocol, LogLevel } from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";
import { freshHub, rest, send, token, until, sandbox } from "./support.mjs";

async function connect(hub, user, { transport = HttpTransportType.WebSockets, protocol = new JsonHubProtocol(), skipNegotiation = false, reconnect = false } = {}) {
  const accessTokenFactory = () => token(hub, user);
  let builder = new HubConnectionBuilder()
    .withUrl(`${sandbox.endpoints.east}/client/?hub=${hub}`, { transport, accessTokenFactory, skipNegotiation })
    .withHubProtocol(protocol)
    .configureLogging(LogLevel.None);
  if (reconnect) builder = builder.withAutomaticReconnect([0, 100, 500]);
  const connection = builder.build();
  const received = [];
  connection.on("t", (...args) => { received.push(args); });
  await connection.start();
  return { connection, received };
}

const protocols = [["json", JsonHubProtocol], ["messagepack", MessagePackHubProtocol]];
const transports = [["WebSockets", HttpTransportType.WebSockets], ["ServerSentEvents", HttpTransportType.ServerSentEvents], ["LongPolling", HttpTransportType.LongPolling]];

for (const [transportName, transport] of transports) {
  for (const [protocolName, Protocol] of protocols) {
    // Server-sent events carry text only.
    if (transportName === "ServerSentEvents" && protocolName === "messagepack") continue;

    test(`${transportName}, ${protocolName}: every audience gets each message once and in order`, async () => {
      const hub = freshHub();
      const options = () => ({ transport, protocol: new Protocol() });
      const ann = await connect(hub, "ann", options());
      const ben = await connect(hub, "ben", options());
      const id = ann.connection.connectionId;
      assert.equal((await rest("PUT", `${hub}/groups/g/connections/${id}`)).status, 200);
      assert.equal((await rest("PUT", `${hub}/users/ann/groups/g`)).status, 200);
      for (let number = 0; number < 50; number++) await send(`${hub}/:send`, "t", number);
      await send(`${hub}/users/ann/:send`, "t", "user");
      await send(`${hub}/groups/g/:send`, "t", "group");
      await send(`${hub}/connections/${id}/:send`, "t", "connection");
      await send(`${hub}/:send?excluded=${id}`, "t", "excluded");
      await send(`${hub}/:send`, "t", "end");
      await until(() => [ann, ben].every(({ received }) => received.at(-1)?.[0] === "end"));
      const numbers = Array.from({ length: 50 }, (_, number) => number);
      assert.deepEqual(ann.received.flat(), [...numbers, "user", "group", "connection", "end"]);
      assert.deepEqual(ben.received.flat(), [...numbers, "excluded", "end"]);
      await Promise.all([ann.connection.stop(), ben.connection.stop()]);
      await untilGone(hub, id);
    });

    test(`${transportName}, ${protocolName}: values keep their types`, async () => {
      const hub = freshHub();
      const { connection, received } = await connect(hub, "ann", { transport, protocol: new Protocol() });
      const values = [0, -1, 300, 65536, 1.5, 2 ** 53 - 1, true, null, "", "grüße 💡 \u001e\u0000 \n", [1, [2]], { b: 1, a: { c: [null] } }];
      await send(`${hub}/:send`, "t", ...values);
      await until(() => received.length > 0);
      assert.deepEqual(received[0], values);
      assert.deepEqual(Object.keys(received[0].at(-1)), ["b", "a"]);
      await connection.stop();
    });

    test(`${transportName}, ${protocolName}: a closed client receives the reason`, async () => {
      const hub = freshHub();
      const { connection } = await connect(hub, "ann", { transport, protocol: new Protocol() });
      const closed = new Promise((resolve) => connection.onclose(resolve));
      const response = await rest("POST", `${hub}/users/ann/:closeConnections?reason=enough`);
      assert.equal(response.status, 204);
      assert.match(String(await closed), /Server returned an error on close: enough/);
    });

    test(`${transportName}, ${protocolName}: invocations return results or errors in both directions`, async () => {
      const hub = freshHub();
      const { connection } = await connect(hub, "ann", { transport, protocol: new Protocol() });
      connection.on("add", (a, b) => a + b);
      connection.on("fail", () => { throw new Error("on purpose"); });
      const invoke = (target, ...args) => rest("POST", `${hub}/connections/${connection.connectionId}/:invoke`, { target, arguments: args });
      const response = await invoke("add", 40, 2);
      assert.deepEqual([response.status, await response.json()], [200, { result: 42 }]);
      const failed = await invoke("fail");
      assert.equal(failed.status, 400);
      assert.match(await failed.text(), /on purpose/);
      await assert.rejects(connection.invoke("anything"), /no upstream/);
      await connection.stop();
    });
  }
}

async function untilGone(hub, id) {
  const deadline = Date.now() + 5000;
  while ((await rest("HEAD", `${hub}/connections/${id}`)).status !== 404) assert.ok(Date.now() < deadline);
}

test("a client that skips negotiation opens a separate connection", async () => {
  const hub = freshHub();
  const { connection, received } = await connect(hub, "ann", { skipNegotiation: true });
  await send(`${hub}/users/ann/:send`, "t", 1);
  await until(() => received.length === 1);
  await connection.stop();
});

test("a client reconnects if configured to, as a new connection of its user", async () => {
  const hub = freshHub();
  const { connection, received } = await connect(hub, "ann", { reconnect: true });
  const before = connection.connectionId;
  const reconnected = new Promise((resolve) => connection.onreconnected(resolve));
  assert.equal((await rest("DELETE", `${hub}/connections/${before}?reason=move`)).status, 200);
  assert.notEqual(await reconnected, before);
  await send(`${hub}/users/ann/:send`, "t", "again");
  await until(() => received.length === 1);
  await connection.stop();
});

test("connections of a group are listed, page by page", async () => {
  const hub = freshHub();
  const clients = await Promise.all([1, 2, 3].map(() => connect(hub, "ann")));
  const ids = clients.map(({ connection }) => connection.connectionId);
  for (const id of ids) await rest("PUT", `${hub}/groups/g/connections/${id}`);
  const page = await (await rest("GET", `${hub}/groups/g/connections?maxpagesize=2`)).json();
  assert.equal(page.value.length, 2);
  const next = new URL(page.nextLink);
  const rest2 = await (await fetch(`${sandbox.gateway}${next.pathname}${next.search}`)).json();
  assert.deepEqual([...page.value, ...rest2.value].map(({ connectionId }) => connectionId).sort(), ids.sort());
  await Promise.all(clients.map(({ connection }) => connection.stop()));
});

test("a token of another hub is rejected", async () => {
  const stolen = await token(freshHub(), "ann");
  const response = await fetch(`${sandbox.endpoints.east}/client/negotiate?hub=${freshHub()}&negotiateVersion=1`, {
    method: "POST",
    headers: { authorization: `Bearer ${stolen}` },
  });
  assert.equal(response.status, 401);
});
