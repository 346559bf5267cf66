// One service under test, the sandbox or an Azure SignalR resource: REST calls signed with its access key, and real clients.

import { createHmac } from "node:crypto";
import { request as http } from "node:http";
import { request as https } from "node:https";
import { HttpTransportType, HubConnectionBuilder, LogLevel } from "@microsoft/signalr";

const WAIT_MS = 20_000;
export const VERSION = "2024-12-01";

const base64url = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

// Returns the parts of a connection string of Azure SignalR.
export function parseConnectionString(text) {
  const parts = Object.fromEntries(text.split(";").filter(Boolean).map((part) => {
    const [name] = part.split("=", 1);
    return [name.trim().toLowerCase(), part.slice(name.length + 1)];
  }));
  if (!parts.endpoint || !parts.accesskey) throw new Error("the connection string needs Endpoint and AccessKey");
  const url = parts.endpoint.replace(/\/$/, "") + (parts.port ? `:${parts.port}` : "");
  return { url, key: parts.accesskey };
}

export async function until(what, condition) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${WAIT_MS / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export class Target {
  // `url` is where calls go. `audience` is the URL for which tokens are signed, which differs behind a private endpoint.
  constructor({ name, url, audience = url, key }) {
    Object.assign(this, { name, url, audience, key });
  }

  sign(claims, key = this.key) {
    const now = Math.floor(Date.now() / 1000);
    const head = `${base64url({ alg: "HS256", typ: "JWT" })}.${base64url({ iat: now, exp: now + 600, ...claims })}`;
    return `${head}.${createHmac("sha256", key).update(head).digest("base64url")}`;
  }

  // Returns a token for a REST call.
  restToken(path) {
    return this.sign({ aud: `${this.audience}${path.split("?", 1)[0]}` });
  }

  clientToken(hub, user, claims = {}) {
    return this.sign({ aud: `${this.audience}/client/?hub=${hub.toLowerCase()}`, ...(user && { nameid: user }), ...claims });
  }

  // Sends a request exactly as given, and returns the response. `token: null` sends none.
  call(method, path, { body, headers = {}, token = this.restToken(path) } = {}) {
    const data = body === undefined || body instanceof Uint8Array || typeof body === "string" ? body : JSON.stringify(body);
    const { protocol, hostname, port } = new URL(this.url);
    const sent = {
      ...(token && { authorization: `Bearer ${token}` }),
      ...(data !== undefined && { "content-type": "application/json", "content-length": Buffer.byteLength(data) }),
      ...headers,
    };
    return new Promise((resolve, reject) => {
      const send = protocol === "https:" ? https : http;
      const call = send({ hostname, port, method, path, headers: sent, timeout: WAIT_MS }, (response) => {
        const chunks = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString() }));
      });
      call.on("timeout", () => call.destroy(new Error(`no response within ${WAIT_MS / 1000} s`)));
      call.on("error", reject);
      call.end(data);
    });
  }

  // Connects the official client over WebSocket. `received` has the arguments of messages `t`, `closed` the reason.
  async connect(hub, user, { token = this.clientToken(hub, user), protocol, methods = {} } = {}) {
    let builder = new HubConnectionBuilder()
      .withUrl(`${this.url}/client/?hub=${hub}`, { transport: HttpTransportType.WebSockets, accessTokenFactory: () => token })
      .configureLogging(LogLevel.None);
    if (protocol) builder = builder.withHubProtocol(protocol);
    const connection = builder.build();
    const client = { connection, received: [], closed: undefined };
    connection.on("t", (...args) => { client.received.push(args); });
    for (const [name, method] of Object.entries(methods)) connection.on(name, method);
    connection.onclose((error) => { client.closed = error ? error.message : "without a reason"; });
    await connection.start();
    client.id = connection.connectionId;
    // The service knows the connection a moment after the client does.
    const path = `/api/hubs/${hub}/connections/${client.id}?api-version=${VERSION}`;
    await until("the service knows the connection", async () => (await this.call("HEAD", path)).status === 200);
    return client;
  }
}
