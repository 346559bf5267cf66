// What is compared: sections of calls, each on a hub of its own, with the source of every fact. Nothing here was seen at a real
// resource unless recorded.json says when it was proven.

import { randomBytes } from "node:crypto";
import { HttpTransportType, HubConnectionBuilder, LogLevel } from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";
import { Encoder } from "@msgpack/msgpack";
import { normalizeResponse, normalizeText } from "./compare.mjs";
import { until, VERSION } from "./target.mjs";

// Where a fact comes from.
export const BASES = {
  swagger: "declared in Microsoft's API definition",
  docs: "written in Microsoft's documentation",
  source: "read in the source of Microsoft's SDK, emulator or ASP.NET Core",
  inferred: "concluded from the above, stated nowhere",
};
const from = (basis) => (source) => ({ basis, source });
const [swagger, docs, source, inferred] = Object.keys(BASES).map(from);
const DEFINITION = swagger("2024-12-01");
// The definition declares ErrorDetail and x-ms-error-code for every error; their values and the status are read nowhere.
const INVALID = inferred("an invalid argument; the definition declares ErrorDetail");
const MESSAGE = (...args) => ({ target: "t", arguments: args });

class Section {
  constructor(name, target, facts) {
    Object.assign(this, { name, target, facts, clients: [], ends: 0 });
    this.hub = `conf${randomBytes(5).toString("hex")}`;
    const { host } = new URL(target.audience);
    this.names = [[target.audience, "(endpoint)"], [target.url, "(endpoint)"], [host, "(host)"], [this.hub, "(hub)"], [this.hub.toUpperCase(), "(HUB)"]];
  }

  fact(step, basis, observed) {
    this.facts[`${this.name}: ${step}`] = { ...basis, observed };
  }

  // Returns the path of a call about the section's hub.
  path(rest, query = {}) {
    return `/api/hubs/${this.hub}${rest}?${new URLSearchParams({ "api-version": VERSION, ...query })}`;
  }

  // Sends a call without observing it.
  async send(method, rest, { query, ...options } = {}) {
    return this.target.call(method, /^\/api\//i.test(rest) ? rest : this.path(rest, query), options);
  }

  // Sends a call, and records the response as a fact.
  async call(step, basis, method, rest, options) {
    const response = await this.send(method, rest, options);
    this.fact(step, basis, normalizeResponse(response, this.names));
    return response;
  }

  async client(user, options) {
    const client = await this.target.connect(this.hub, user, options);
    this.clients.push(client);
    this.names.unshift([client.id, `(connection of ${user ?? "nobody"})`]);
    return client;
  }

  // Records what has arrived at clients since the last time. A final broadcast marks the end, so that missing messages are noticed.
  async arrived(step, basis, clients) {
    const end = `end ${++this.ends}`;
    await this.send("POST", "/:send", { body: MESSAGE(end) });
    await until(`the message "${end}" arrives`, () => Object.values(clients).every(({ received }) => received.at(-1)?.[0] === end));
    const lists = Object.entries(clients).map(([name, { received }]) => [name, received.splice(0).slice(0, -1)]);
    this.fact(step, basis, { arrived: Object.fromEntries(lists) });
  }

  async closed(step, basis, client) {
    await until("the client is closed", () => client.closed !== undefined);
    this.fact(step, basis, { closed: normalizeText(client.closed, this.names) });
  }

  async end() {
    await Promise.all(this.clients.map(({ connection }) => connection.stop().catch(() => {})));
  }
}

const SECTIONS = {
  async health(s) {
    await s.call("HEAD without a token", DEFINITION, "HEAD", "/api/health", { token: null });
    await s.call("v1 by GET, without a token", docs("REST quickstart"), "GET", "/api/v1/health", { token: null });
  },

  async authentication(s) {
    const path = s.path("/:send");
    const body = MESSAGE();
    const aud = `${s.target.audience}${path.split("?")[0]}`;
    const call = (step, basis, token) => s.call(step, basis, "POST", path, { body, token });
    await call("no token", inferred("status by RFC 6750; the body is read nowhere"), null);
    await call("not a token", inferred(), "opaque");
    await call("another key", docs("REST API: authenticate via the access key"), s.target.sign({ aud }, "another-key-of-32-characters-000"));
    await call("expired", docs("REST API: claims"), s.target.sign({ aud, exp: 1000 }));
    await call("no expiry", inferred(), s.target.sign({ aud, exp: undefined }));
    await call("audience of another call", docs("troubleshooting: 401"), s.target.sign({ aud: `${s.target.audience}/api/hubs/other/:send` }));
    await call("audience with the query", inferred(), s.target.sign({ aud: `${s.target.audience}${path}` }));
    await call("audience with a slash at its end", inferred(), s.target.sign({ aud: `${aud}/` }));
    await call("token of a client", source("issue Azure/azure-signalr#1953"), s.target.clientToken(s.hub, "ann"));
    const { status, body: key } = await s.send("GET", "/api/auth/accessKey?api-version=2023-07-01");
    s.fact("a key for the SDK", DEFINITION, { status, keys: status === 200 ? Object.keys(JSON.parse(key)).sort() : [] });
  },

  async "messages to a hub"(s) {
    const [ann, ben] = [await s.client("ann"), await s.client("ben")];
    const post = (step, basis, options) => s.call(step, basis, "POST", "/:send", options);
    await post("a broadcast", DEFINITION, { body: MESSAGE("all") });
    await post("excluded", DEFINITION, { body: MESSAGE("all but ann"), query: { excluded: ann.id } });
    await post("excluded that is not connected", DEFINITION, { body: MESSAGE("nobody excluded"), query: { excluded: "nobody" } });
    await post("keys in another case", source("SDK JsonPayloadMessageContent writes Target and Arguments"), { body: { Target: "t", Arguments: ["upper"] } });
    await post("without arguments", source("SDK"), { body: { target: "t" } });
    await post("unknown keys", inferred(), { body: { ...MESSAGE("unknown key"), more: 1 } });
    await post("without a target", INVALID, { body: { arguments: [] } });
    await post("not JSON", INVALID, { body: "{" });
    await post("no body", INVALID, {});
    await post("another content type", inferred("status by RFC 9110"), { body: "x", headers: { "content-type": "text/plain" } });
    await post("MessagePack", source("swagger: application/x-msgpack"), { body: new Encoder().encode(MESSAGE("msgpack", 1.5, null)), headers: { "content-type": "application/x-msgpack" } });
    await post("long and nested values", inferred(), { body: '{"target":"t","arguments":[[1,[null,true]],{"b":1.0,"a":"grüße \\u001e"}]}' });
    await s.arrived("what arrives", inferred("delivery once and in order, if the caller waits for each response"), { ann, ben });
    const frames = new Encoder().encode({ json: new TextEncoder().encode('{"type":1,"target":"t","arguments":["own frame"]}\u001e') });
    await post("frames of the caller", source("SDK with hub protocols"), { body: frames, headers: { "content-type": "application/octet-stream" } });
    await s.arrived("what arrives of frames", source("SDK with hub protocols"), { ann, ben });
  },

  async "messages to a user"(s) {
    const [ann, again, ben] = [await s.client("ann"), await s.client("ann"), await s.client("ben")];
    await s.call("connected", DEFINITION, "POST", "/users/ann/:send", { body: MESSAGE("to ann") });
    await s.call("not connected", source("emulator"), "POST", "/users/nobody/:send", { body: MESSAGE("to nobody") });
    await s.call("another case", source("emulator: users are case-sensitive"), "POST", "/users/ANN/:send", { body: MESSAGE("to ANN") });
    await s.arrived("what arrives", DEFINITION, { ann, again, ben });
    await s.call("exists", DEFINITION, "HEAD", "/users/ann");
    await s.call("does not exist", source("SDK RestClient: Warning.User.NotExisted"), "HEAD", "/users/nobody");
    await s.call("exists, by GET", source("emulator"), "GET", "/users/ann");
    const slash = await s.client("a/b");
    await s.call("a slash in its name", source("SDK RestApiProviderFacts: user%2Fa"), "POST", "/users/a%2Fb/:send", { body: MESSAGE("to a/b") });
    await s.arrived("what arrives at a name with a slash", source("SDK"), { slash, ann });
  },

  async "one connection"(s) {
    const ann = await s.client("ann");
    const at = `/connections/${ann.id}`;
    await s.call("send", DEFINITION, "POST", `${at}/:send`, { body: MESSAGE("to the connection") });
    await s.call("send to none", source("emulator"), "POST", "/connections/nobody/:send", { body: MESSAGE() });
    await s.arrived("what arrives", DEFINITION, { ann });
    await s.call("exists", DEFINITION, "HEAD", at);
    await s.call("does not exist", source("SDK: Warning.Connection.NotExisted"), "HEAD", "/connections/nobody");
    await s.call("close with a reason", DEFINITION, "DELETE", at, { query: { reason: "so long" } });
    await s.closed("what the client sees", source("ASP.NET Core: Close record"), ann);
    await s.call("close none", source("emulator; the SDK takes 404, too"), "DELETE", "/connections/nobody");
  },

  async "connections in groups"(s) {
    const [ann, ben] = [await s.client("ann"), await s.client("ben")];
    const member = `/groups/g/connections/${ann.id}`;
    await s.call("a group without members", source("SDK: Warning.Group.NotExisted"), "HEAD", "/groups/g");
    await s.call("add", DEFINITION, "PUT", member);
    await s.call("add again", DEFINITION, "PUT", member);
    await s.call("the group exists", DEFINITION, "HEAD", "/groups/g");
    await s.call("add none", source("SDK: Error.Connection.NotExisted"), "PUT", "/groups/g/connections/nobody");
    await s.call("send", DEFINITION, "POST", "/groups/g/:send", { body: MESSAGE("to the group") });
    await s.call("send, with the member excluded", DEFINITION, "POST", "/groups/g/:send", { body: MESSAGE("to nobody"), query: { excluded: ann.id } });
    await s.call("send to a group without members", source("emulator"), "POST", "/groups/none/:send", { body: MESSAGE("to none") });
    await s.arrived("what arrives", DEFINITION, { ann, ben });
    await s.call("remove", DEFINITION, "DELETE", member);
    await s.call("remove again", inferred("2022-06-01 declares 404"), "DELETE", member);
    await s.call("remove none", source("SDK: Error.Connection.NotExisted"), "DELETE", "/groups/g/connections/nobody");
    await s.send("PUT", member);
    await s.call("remove from all", DEFINITION, "DELETE", `/connections/${ann.id}/groups`);
    await s.call("remove none from all", source("emulator"), "DELETE", "/connections/nobody/groups");
    await s.send("POST", "/groups/g/:send", { body: MESSAGE("after") });
    await s.arrived("what arrives after that", DEFINITION, { ann, ben });
    await s.call("a name of spaces", INVALID, "POST", "/groups/%20/:send", { body: MESSAGE() });
    await s.call("a name of 1024 characters", DEFINITION, "POST", `/groups/${"g".repeat(1024)}/:send`, { body: MESSAGE() });
    await s.call("a name of 1025 characters", INVALID, "POST", `/groups/${"g".repeat(1025)}/:send`, { body: MESSAGE() });
  },

  async "users in groups"(s) {
    const ann = await s.client("ann");
    await s.call("add", DEFINITION, "PUT", "/users/ann/groups/g");
    await s.call("add one who is not connected", DEFINITION, "PUT", "/users/nobody/groups/g");
    await s.call("is in the group", DEFINITION, "HEAD", "/users/ann/groups/g");
    await s.call("is not in the group", source("SDK: Info.User.NotInGroup"), "HEAD", "/users/ann/groups/other");
    await s.send("PUT", `/groups/g/connections/${ann.id}`);
    await s.send("POST", "/groups/g/:send", { body: MESSAGE("once") });
    await s.call("add those connected now", swagger("2024-12-01: ttl=0"), "PUT", "/users/ann/groups/now", { query: { ttl: 0 } });
    const late = await s.client("ann");
    await s.send("POST", "/groups/g/:send", { body: MESSAGE("later connection") });
    await s.send("POST", "/groups/now/:send", { body: MESSAGE("not the later connection") });
    await s.arrived("what arrives", swagger("2024-12-01: a user's later connections join; once by connection and user is inferred"), { ann, late });
    await s.call("a negative ttl", INVALID, "PUT", "/users/ann/groups/g", { query: { ttl: -1 } });
    await s.call("remove", DEFINITION, "DELETE", "/users/ann/groups/g");
    await s.call("remove one who is not a member", DEFINITION, "DELETE", "/users/nobody/groups/other");
    await s.call("remove from all", DEFINITION, "DELETE", "/users/ann/groups");
    await s.send("POST", "/groups/g/:send", { body: MESSAGE("after") });
    await s.arrived("what arrives after that", inferred("removes what connections joined on their own, as in the emulator"), { ann, late });
  },

  async "closing connections"(s) {
    const clients = [];
    for (const user of ["ann", "ben", "cleo", "dora"]) clients.push(await s.client(user));
    const [ann, ben, cleo, dora] = clients;
    await s.send("PUT", `/groups/g/connections/${ben.id}`);
    await s.call("of a user", DEFINITION, "POST", "/users/ann/:closeConnections", { query: { reason: "user" } });
    await s.closed("what the client of the user sees", source("ASP.NET Core"), ann);
    await s.call("of a group", DEFINITION, "POST", "/groups/g/:closeConnections");
    await s.closed("what the client of the group sees", inferred("without a reason"), ben);
    await s.call("of the hub, but one", DEFINITION, "POST", "/:closeConnections", { query: { excluded: dora.id, reason: "hub" } });
    await s.closed("what the client of the hub sees", source("ASP.NET Core"), cleo);
    await s.arrived("the excluded one is still connected", DEFINITION, { dora });
    await s.call("of a user who is not connected", source("emulator"), "POST", "/users/nobody/:closeConnections");
  },

  async "list of a group"(s) {
    // Of one user, because the order of the list is not defined.
    const clients = [await s.client("ann"), await s.client("ann"), await s.client("ann")];
    for (const { id } of clients) await s.send("PUT", `/groups/g/connections/${id}`);
    const all = JSON.parse((await s.call("the first of two pages", DEFINITION, "GET", "/groups/g/connections", { query: { maxpagesize: 2 } })).body);
    const rest = all.nextLink ? JSON.parse((await s.send("GET", all.nextLink.slice(new URL(all.nextLink).origin.length))).body) : { value: [] };
    const members = [...all.value, ...rest.value].map(({ userId }) => userId ?? null).sort();
    s.fact("both pages", DEFINITION, { members, more: rest.nextLink !== undefined });
    const nobody = await s.client(undefined);
    await s.send("PUT", `/groups/nobody/connections/${nobody.id}`);
    await s.call("a connection without a user", DEFINITION, "GET", "/groups/nobody/connections");
    await s.call("a group without members", source("emulator"), "GET", "/groups/none/connections");
    await s.call("pages of 201", INVALID, "GET", "/groups/g/connections", { query: { maxpagesize: 201 } });
    await s.call("top 0", INVALID, "GET", "/groups/g/connections", { query: { top: 0 } });
    await s.call("by an older version", inferred(), "GET", `/api/hubs/${s.hub}/groups/g/connections?api-version=2022-06-01`);
  },

  async "tokens of clients"(s) {
    const generate = (step, basis, query) => s.call(step, basis, "POST", "/:generateToken", { query });
    await generate("default", DEFINITION, {});
    const { body } = await generate("user and minutes", DEFINITION, { userId: "ann", minutesToExpire: 5 });
    await generate("no minutes", INVALID, { minutesToExpire: 0 });
    const ann = await s.client("ann", { token: JSON.parse(body).token });
    await s.send("POST", "/users/ann/:send", { body: MESSAGE("to ann") });
    await s.arrived("a client with it is the user", DEFINITION, { ann });
    const negotiate = (step, basis, query, token = s.target.clientToken(s.hub, "ann"), headers = {}) =>
      s.target.call("POST", `/client/negotiate?${new URLSearchParams(query)}`, { token, headers }).then((response) => {
        const { connectionId, connectionToken } = response.body.startsWith("{") ? JSON.parse(response.body) : {};
        const names = [[connectionToken, "(connection token)"], [connectionId, "(connection)"], ...s.names].filter(([value]) => value);
        s.fact(step, basis, normalizeResponse(response, names));
      });
    await negotiate("negotiate", source("ASP.NET Core TransportProtocols.md"), { hub: s.hub, negotiateVersion: 1 });
    await negotiate("negotiate, version 0", source("ASP.NET Core TransportProtocols.md"), { hub: s.hub });
    await negotiate("negotiate with CORS", source("ASP.NET Core"), { hub: s.hub, negotiateVersion: 1 }, undefined, { origin: "https://app.example" });
    await negotiate("negotiate without a hub", docs("troubleshooting: 400"), { negotiateVersion: 1 });
    await negotiate("negotiate without a token", docs("troubleshooting: 401"), { hub: s.hub, negotiateVersion: 1 }, null);
    await negotiate("negotiate with a token of another hub", docs("claims: aud"), { hub: s.hub, negotiateVersion: 1 }, s.target.clientToken("other", "ann"));
  },

  async invocations(s) {
    const methods = { echo: (value) => value, fail: () => { throw new Error("broken"); } };
    const ann = await s.client("ann", { methods });
    const invoke = (step, basis, target, id = ann.id) => s.call(step, basis, "POST", `/connections/${id}/:invoke`, { body: { target, arguments: [{ a: [1, "x"] }] } });
    await invoke("a result", DEFINITION, "echo");
    await invoke("an error of the client", inferred("the service's response is read nowhere"), "fail");
    await invoke("a client that is not connected", inferred(), "echo", "nobody");
    const called = await ann.connection.invoke("anything").then((value) => ({ value }), (error) => ({ error: normalizeText(error.message, s.names) }));
    s.fact("a call by a client without an upstream", inferred("the documentation contradicts itself: ignored, or disconnected"), called.error ? { error: "(wording)" } : called);
    const binary = await s.client("ben", { protocol: new MessagePackHubProtocol(), methods });
    await invoke("a result by MessagePack", DEFINITION, "echo", binary.id);
  },

  async commands(s) {
    const [ann, ben] = [await s.client("ann"), await s.client("ben")];
    const execute = (step, basis, filter, ...commands) => s.call(step, basis, "POST", "/:execute", { query: filter ? { filter } : {}, body: commands });
    const say = (value) => ({ type: "SendMessage", message: MESSAGE(value) });
    await execute("a message to some", swagger("2024-12-01, example: startswith"), "startswith(userId, 'b')", say("to b"));
    await execute("a group for one", DEFINITION, "userId eq 'ben'", { type: "JoinGroup", group: "g" });
    await s.send("POST", "/groups/g/:send", { body: MESSAGE("to the group") });
    await execute("all", DEFINITION, "", say("to all"));
    await s.arrived("what arrives", DEFINITION, { ann, ben });
    await execute("an invalid filter", INVALID, "userId", say("x"));
    await execute("an unknown command", INVALID, "", { type: "Unknown" });
    await execute("close", DEFINITION, `connectionId eq '${ann.id}'`, { type: "CloseConnection", reason: "by command" });
    await s.closed("what the client sees", source("ASP.NET Core"), ann);
  },

  async streams(s) {
    const ann = await s.client("ann");
    const streamed = [];
    ann.connection.stream("ticks").subscribe({
      next: (item) => streamed.push(item), complete: () => streamed.push("(complete)"), error: () => streamed.push("(error)"),
    });
    const item = (step, value, query) => s.call(step, swagger("2024-12-01; the item's form is read in the SDK"), "POST", `/connections/${ann.id}/streams/0/:send`, { body: JSON.stringify(value), query });
    await item("an item", { a: 1 });
    await item("the last item", "last", { completed: true });
    await until("the stream ends", () => streamed.length >= 3);
    s.fact("what the client sees", inferred(), { streamed });
    await s.call("the end of a stream", DEFINITION, "POST", `/connections/${ann.id}/streams/1/:complete`, { query: { reason: "done" } });
  },

  async "paths of v1"(s) {
    const [ann, ben] = [await s.client("ann"), await s.client("ben")];
    const V1 = swagger("v1");
    const call = (step, method, path, body) => s.call(step, V1, method, `/api/v1/hubs/${s.hub}${path}`, body && { body: MESSAGE(body) });
    await call("a broadcast", "POST", "", "all");
    await call("to a user", "POST", "/users/ann", "to ann");
    await call("to a connection", "POST", `/connections/${ben.id}`, "to the connection");
    await call("a user exists", "GET", "/users/ann");
    await call("a user does not exist", "GET", "/users/nobody");
    await call("a user into a group", "PUT", "/groups/g/users/ann");
    await call("to a group", "POST", "/groups/g", "to the group");
    await s.arrived("what arrives", V1, { ann, ben });
    await call("a user out of a group", "DELETE", "/groups/g/users/ann");
    await s.call("no body", INVALID, "POST", `/api/v1/hubs/${s.hub}`);
    await call("close a connection", "DELETE", `/connections/${ben.id}?reason=v1`);
    await s.closed("what the client sees", source("ASP.NET Core"), ben);
  },

  async spellings(s) {
    const ann = await s.client("ann");
    const body = () => ({ body: MESSAGE() });
    const post = (step, basis, path, options = body()) => s.call(step, basis, "POST", path, options);
    const ROUTING = inferred("ASP.NET Core routing");
    await post("no version", inferred("required by the definition; the response is read nowhere"), `/api/hubs/${s.hub}/:send`);
    await post("an unknown version", inferred(), `/api/hubs/${s.hub}/:send?api-version=2019-01-01`);
    await post("the version 2022-06-01", swagger("2022-06-01"), `/api/hubs/${s.hub}/:send?api-version=2022-06-01`);
    await post("a slash at the end", ROUTING, `/api/hubs/${s.hub}/:send/?api-version=${VERSION}`);
    await post("an encoded colon", ROUTING, `/api/hubs/${s.hub}/%3Asend?api-version=${VERSION}`);
    await post("literals in another case", ROUTING, `/API/Hubs/${s.hub}/:SEND?API-Version=${VERSION}`);
    await post("a hub in another case", source("emulator: hubs have no case"), `/api/hubs/${s.hub.toUpperCase()}/:send?api-version=${VERSION}`, { body: MESSAGE("upper hub") });
    await post("a hub that begins with a digit", INVALID, `/api/hubs/1${s.hub}/:send?api-version=${VERSION}`);
    await post("a v1 hub with a hyphen in its application", inferred("the documentation allows application names that the definition does not"), `/api/v1/hubs/my-app_${s.hub}`);
    await post("a user that begins with an encoded colon", inferred(), "/users/%3Abob/:send");
    await post("a user that begins with a colon", ROUTING, "/users/:bob/:send");
    await post("an unknown operation", ROUTING, "/:nothing");
    await s.call("an unknown path", ROUTING, "GET", `/api/nothing?api-version=${VERSION}`);
    await s.call("another method", ROUTING, "GET", "/:send");
    await s.arrived("what arrives", source("emulator: hubs have no case"), { ann });
  },

  async limits(s) {
    const post = (step, basis, path, options) => s.call(step, basis, "POST", path, options);
    await post("a body of 900 kB", docs("limits: 1 MB"), "/:send", { body: MESSAGE("x".repeat(900_000)) });
    await post("a body of 1.1 MiB", inferred("the limit is documented, the status is not"), "/:send", { body: MESSAGE("x".repeat(1_153_434)) });
    await post("a target of 13 kB", docs("troubleshooting: 414"), `/groups/g/:send?api-version=${VERSION}&application=${"a".repeat(13_000)}`.replace(/^/, `/api/hubs/${s.hub}`), { body: MESSAGE() });
    await post("a header of 17 KiB", docs("limits: 16 KB"), "/:send", { body: MESSAGE(), headers: { "x-long": "x".repeat(17 * 1024) } });
  },

  async "claims of 2026-07-01"(s) {
    const ISSUES = source("issues Azure/azure-signalr#2281, #2282; no definition is published");
    const token = s.target.clientToken(s.hub, "ann");
    const negotiated = await s.target.call("POST", `/client/negotiate?hub=${s.hub}&negotiateVersion=1`, { token });
    const { connectionToken } = JSON.parse(negotiated.body);
    const connection = new HubConnectionBuilder()
      .withUrl(`${s.target.url}/client/?hub=${s.hub}&id=${connectionToken}`, { skipNegotiation: true, transport: HttpTransportType.WebSockets, accessTokenFactory: () => token })
      .configureLogging(LogLevel.None).build();
    s.clients.push({ connection });
    await connection.start();
    await until("the service knows the user", async () => (await s.send("HEAD", "/users/ann")).status === 200);
    const path = (name) => `/api/hubs/${s.hub}/connections/${name}?api-version=2026-07-01`;
    const refresh = (step, body) => s.call(step, ISSUES, "POST", path(":refreshAuth"), { body });
    const expireTime = "2099-01-01T00:00:00Z";
    await s.call("claims by POST", ISSUES, "POST", path("claims"), { body: { connectionToken } });
    await s.call("claims by QUERY", ISSUES, "QUERY", path("claims"), { body: { connectionToken } });
    await refresh("refresh", { connectionToken, expireTime, claims: [{ type: "nameid", value: "ann" }, { type: "role", value: "admin" }] });
    await refresh("refresh for another user", { connectionToken, expireTime, claims: [{ type: "nameid", value: "ben" }] });
    await refresh("refresh of none", { connectionToken: "nobody", expireTime });
    await refresh("refresh without a token", { expireTime });
  },
};

// Runs all sections, or those named, and returns the facts with what was observed.
export async function observe(target, names = Object.keys(SECTIONS)) {
  const facts = {};
  for (const name of names) {
    const section = new Section(name, target, facts);
    try {
      await SECTIONS[name](section);
    } catch (error) {
      // The other sections are still worth comparing.
      section.fact("the section was cut short", inferred(), { failed: normalizeText(error.message, section.names) });
    } finally {
      await section.end();
    }
  }
  return facts;
}
