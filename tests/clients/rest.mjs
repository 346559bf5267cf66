// The effects of REST calls on connected clients, seen by the official JavaScript client: streams, frames built by
// the caller, client invocations, groups with an expiry, the v1 paths, closes, lists and numbers.

import assert from "node:assert/strict";
import test, { after } from "node:test";
import { HubConnectionBuilder, JsonHubProtocol, LogLevel } from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";
import { Encoder } from "@msgpack/msgpack";
import { freshHub, rest, send, until, sandbox } from "./support.mjs";

const protocols = [["json", JsonHubProtocol], ["messagepack", MessagePackHubProtocol]];
const open = [];
// Runs also when a test fails.
after(() => Promise.all(open.map((connection) => connection.stop())));

// Connects a client after negotiation with an application. `received` has the messages, `ended` the reason of the close.
async function connect(hub, user, { endpoint = "east", Protocol = JsonHubProtocol } = {}) {
  const connection = new HubConnectionBuilder()
    .withUrl(`${sandbox.control}/endpoints/${endpoint}?hub=${hub}&user=${user}`)
    .withHubProtocol(new Protocol())
    .configureLogging(LogLevel.None)
    .build();
  const client = { connection, received: [], ended: undefined };
  connection.on("t", (...args) => { client.received.push(...args); });
  connection.onclose((error) => { client.ended = String(error); });
  await connection.start();
  open.push(connection);
  return { ...client, client, id: connection.connectionId };
}

const ok = async (response, status) => assert.equal((await response).status, status);
let ends = 0;
// Returns what arrived since the last call. A final broadcast marks the end, so that missing messages are noticed.
async function settle(hub, ...clients) {
  const end = `end ${++ends}`;
  await send(`${hub}/:send`, "t", end);
  await until(() => clients.every(({ received }) => received.at(-1) === end));
  return clients.map(({ received }) => received.splice(0).slice(0, -1));
}

for (const [name, Protocol] of protocols) {
  test(`${name}: a stream to a client has items and an end, or an error`, async () => {
    const hub = freshHub();
    const { connection, id } = await connect(hub, "ann", { Protocol });
    const streamed = [];
    const subscribe = () => connection.stream("ticks").subscribe({
      next: (item) => streamed.push(item),
      complete: () => streamed.push("complete"),
      error: (error) => streamed.push(error.message),
    });
    const item = (stream, value, query = "") => rest("POST", `${hub}/connections/${id}/streams/${stream}/:send${query}`, JSON.stringify(value));
    // The client numbers its invocations from 0.
    subscribe();
    await ok(item(0, 1), 202);
    await ok(item(0, { a: ["grüße 💡", null] }), 202);
    await ok(item(0, "last", "?completed=true"), 202);
    await until(() => streamed.length === 4);
    subscribe();
    await ok(item(1, 2.5), 202);
    await ok(rest("POST", `${hub}/connections/${id}/streams/1/:complete?reason=broken`), 202);
    await until(() => streamed.length === 6);
    assert.deepEqual(streamed.slice(0, 5), [1, { a: ["grüße 💡", null] }, "last", "complete", 2.5]);
    assert.match(streamed[5], /broken/);
  });

  test(`${name}: frames that the caller built arrive unchanged`, async () => {
    const hub = freshHub();
    const { client } = await connect(hub, "ann", { Protocol });
    const json = new TextEncoder().encode('{"type":1,"target":"t","arguments":["by json"]}\u001e');
    const record = new Encoder().encode([1, {}, null, "t", ["by messagepack"], []]);
    const body = new Encoder().encode({ json, messagepack: new Uint8Array([record.length, ...record]) });
    await ok(rest("POST", `${hub}/users/ann/:send`, body, "application/octet-stream"), 202);
    await until(() => client.received.length === 1);
    assert.deepEqual(client.received, [`by ${name}`]);
  });

  test(`${name}: 64-bit integers and any text arrive unchanged`, async () => {
    const hub = freshHub();
    // JavaScript cannot represent large integers, so the raw text is compared.
    const { connection } = await connect(hub, "ann", { Protocol });
    const raw = [];
    const { transport } = connection.connection;
    const receive = transport.onreceive;
    transport.onreceive = (data) => {
      raw.push(typeof data === "string" ? data : Buffer.from(data).toString("hex"));
      receive(data);
    };
    const text = "\u0000\u001e\u2028\ud7ff\uffff\u{10ffff} grüße 💡 \\ \"";
    await ok(rest("POST", `${hub}/:send`, `{"target":"raw","arguments":[18446744073709551615,-9223372036854775808,9007199254740993,${JSON.stringify(text)}]}`), 202);
    await until(() => raw.length === 1);
    if (name === "json") {
      assert.ok(raw[0].includes("[18446744073709551615,-9223372036854775808,9007199254740993,"), raw[0]);
      assert.equal(JSON.parse(raw[0].slice(0, -1)).arguments[3], text);
    } else {
      assert.ok(raw[0].includes("cfffffffffffffffffd38000000000000000cf0020000000000001"), raw[0]);
      assert.ok(raw[0].includes(Buffer.from(text).toString("hex")), raw[0]);
    }
  });

  test(`${name}: commands act on the connections that a filter selects, on both endpoints`, async () => {
    const hub = freshHub();
    const ann = await connect(hub, "ann", { Protocol });
    const ben = await connect(hub, "ben", { Protocol, endpoint: "west" });
    const execute = (filter, ...commands) => rest("POST", `${hub}/:execute?filter=${encodeURIComponent(filter)}`, commands);
    const say = (value) => ({ type: "SendMessage", message: { target: "t", arguments: [value] } });
    await ok(execute("userId eq 'ben'", say("to ben"), { type: "JoinGroup", group: "g" }), 202);
    await send(`${hub}/groups/g/:send`, "t", "to the group");
    await ok(execute("startswith(userId, 'b')", { type: "LeaveGroup", group: "g" }), 202);
    await send(`${hub}/groups/g/:send`, "t", "to nobody");
    await ok(execute("", say("to all")), 202);
    assert.deepEqual(await settle(hub, ann.client, ben.client), [["to all"], ["to ben", "to the group", "to all"]]);
    await ok(execute(`connectionId eq '${ann.id}'`, { type: "CloseConnection", reason: "by command" }), 202);
    await until(() => ann.client.ended);
    assert.match(ann.client.ended, /by command/);
    assert.equal(ben.client.ended, undefined);
  });

  test(`${name}: an invocation returns the client's result, of any type`, async () => {
    const hub = freshHub();
    const { connection, id } = await connect(hub, "ann", { Protocol });
    connection.on("echo", (value) => value);
    connection.on("nothing", () => {});
    const invoke = async (target, ...args) => {
      const response = await rest("POST", `${hub}/connections/${id}/:invoke`, { target, arguments: args });
      return [response.status, (await response.json()).result];
    };
    for (const value of [0, -1.5, "grüße 💡", true, null, [1, [2]], { a: { b: [] } }]) assert.deepEqual(await invoke("echo", value), [200, value]);
    // This client reports a method without a result as an error.
    assert.equal((await invoke("nothing"))[0], 400);
    // An invocation of a client that is not connected fails.
    await ok(rest("POST", `${hub}/connections/nobody/:invoke`, { target: "echo", arguments: [] }), 404);
  });
}

test("a user's membership of a group ends when it expires, or with its current connections", async () => {
  const hub = freshHub();
  const early = await connect(hub, "ann");
  await ok(rest("PUT", `${hub}/users/ann/groups/short?ttl=1`), 200);
  await ok(rest("PUT", `${hub}/users/ann/groups/now?ttl=0`), 200);
  await ok(rest("PUT", `${hub}/users/ann/groups/long?ttl=600`), 200);
  await ok(rest("PUT", `${hub}/users/ann/groups/lasting`), 200);
  const late = await connect(hub, "ann", { endpoint: "west" });
  await until(async () => (await rest("HEAD", `${hub}/users/ann/groups/short`)).status === 404);
  for (const group of ["short", "now", "long", "lasting"]) await send(`${hub}/groups/${group}/:send`, "t", group);
  assert.deepEqual(await settle(hub, early.client, late.client), [["now", "long", "lasting"], ["long", "lasting"]]);
  await ok(rest("DELETE", `${hub}/users/ann/groups/long`), 204);
  await send(`${hub}/groups/long/:send`, "t", "to nobody");
  await ok(rest("DELETE", `${hub}/users/ann/groups`), 204);
  await send(`${hub}/groups/lasting/:send`, "t", "to nobody");
  assert.deepEqual(await settle(hub, early.client), [[]]);
});

test("the v1 paths have the same effects", async () => {
  const hub = freshHub();
  const ann = await connect(hub, "ann");
  const ben = await connect(hub, "ben");
  const v1 = (method, path, value) => fetch(`${sandbox.gateway}/api/v1/hubs/${hub}${path}`, {
    method,
    headers: { "content-type": "application/json" },
    body: value && JSON.stringify({ target: "t", arguments: [value] }),
  });
  await ok(v1("POST", "", "all"), 202);
  await ok(v1("POST", `?excluded=${ann.id}`, "but ann"), 202);
  await ok(v1("POST", "/users/ann", "ann"), 202);
  await ok(v1("POST", `/connections/${ben.id}`, "connection"), 202);
  await ok(v1("PUT", "/groups/g/users/ann"), 202);
  await ok(v1("POST", "/groups/g", "group"), 202);
  assert.deepEqual(await settle(hub, ann.client, ben.client), [["all", "ann", "group"], ["all", "but ann", "connection"]]);
  await ok(v1("DELETE", `/connections/${ben.id}?reason=v1`), 202);
  await until(() => ben.client.ended);
  assert.match(ben.client.ended, /v1/);
});

test("connections of a hub, a group and a user are closed with a reason, except the excluded ones", async () => {
  for (const [where, excluded] of [["", 1], ["groups/g/", 1], ["users/ann/", 0]]) {
    const hub = freshHub();
    const clients = [await connect(hub, "ann"), await connect(hub, "ann", { endpoint: "west" }), await connect(hub, "ben")];
    for (const { id } of clients.slice(0, 2)) await ok(rest("PUT", `${hub}/groups/g/connections/${id}`), 200);
    const excludedClient = clients[excluded];
    await ok(rest("POST", `${hub}/${where}:closeConnections?reason=${encodeURIComponent("so long 💡")}&excluded=${excludedClient.id}&excluded=nobody`), 204);
    const closed = where === "" ? [clients[0], clients[2]] : clients.slice(0, 2).filter((client) => client !== excludedClient);
    await until(() => closed.every(({ client }) => client.ended));
    for (const { client } of closed) assert.match(client.ended, /Server returned an error on close: so long 💡/);
    await settle(hub, ...clients.filter((client) => !closed.includes(client)).map(({ client }) => client));
  }
});

test("excluded connections receive nothing from a hub or a group", async () => {
  const hub = freshHub();
  const clients = await Promise.all(["ann", "ben", "cleo"].map((user) => connect(hub, user)));
  const [ann, ben] = clients;
  for (const { id } of clients) await ok(rest("PUT", `${hub}/groups/g/connections/${id}`), 200);
  await send(`${hub}/:send?excluded=${ann.id}&excluded=${ben.id}`, "t", "hub");
  await send(`${hub}/groups/g/:send?excluded=${ann.id}`, "t", "group");
  assert.deepEqual(await settle(hub, ...clients.map(({ client }) => client)), [[], ["group"], ["hub", "group"]]);
});

test("a group's connections are listed over both endpoints by following the gateway's links", async () => {
  const hub = freshHub();
  const endpoints = ["east", "west", "east", "west", "east"];
  const clients = await Promise.all(endpoints.map((endpoint, number) => connect(hub, `user${number}`, { endpoint })));
  for (const { id } of clients) await ok(rest("PUT", `${hub}/groups/g/connections/${id}`), 200);
  const listed = [];
  let pages = 0;
  let next = `${sandbox.gateway}/api/hubs/${hub}/groups/g/connections?maxpagesize=2&api-version=2024-12-01`;
  while (next) {
    assert.ok(next.startsWith(sandbox.gateway), next);
    const page = await (await fetch(next)).json();
    assert.ok(page.value.length <= 2);
    listed.push(...page.value);
    next = page.nextLink;
    pages += 1;
  }
  assert.ok(pages >= 3);
  const byUser = (a, b) => a.userId.localeCompare(b.userId);
  assert.deepEqual(listed.sort(byUser), clients.map(({ id }, number) => ({ connectionId: id, userId: `user${number}` })));
});
