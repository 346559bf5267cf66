// The browser build of the official JavaScript client, unmodified, in Chromium: on a page of another origin, with
// credentials, over every transport and hub protocol, directly at the endpoint and after negotiation with an
// application.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import test, { after, before } from "node:test";
import { close, open } from "./chromium.mjs";
import { freshHub, rest, send, token, until, sandbox } from "./support.mjs";

const require = createRequire(import.meta.url);
const SCRIPTS = ["@microsoft/signalr/dist/browser/signalr.min.js", "@microsoft/signalr-protocol-msgpack/dist/browser/signalr-protocol-msgpack.min.js"];
const VALUES = [0, -1, 65536, 1.5, 2 ** 53 - 1, true, null, "grüße 💡 \u001e\n", [1, [2]], { b: 1, a: { c: [null] } }];

const site = createServer((_request, response) => response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>"));
before(() => new Promise((resolve) => site.listen(0, "127.0.0.1", resolve)));
after(async () => {
  await close();
  site.closeAllConnections();
  site.close();
});

// Connects in the page. `received` has the messages, and `ended` the reason why the connection closed.
async function connected(url, transport, protocol, bearer) {
  const { page, context } = await open();
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  for (const script of SCRIPTS) await page.addScriptTag({ path: require.resolve(script) });
  const id = await page.evaluate(async ({ url, transport, protocol, bearer }) => {
    window.received = [];
    const options = { transport: signalR.HttpTransportType[transport], ...(bearer && { accessTokenFactory: () => bearer }) };
    const builder = new signalR.HubConnectionBuilder().withUrl(url, options).configureLogging(signalR.LogLevel.None);
    if (protocol === "messagepack") builder.withHubProtocol(new signalR.protocols.msgpack.MessagePackHubProtocol());
    window.connection = builder.build();
    window.connection.on("t", (...args) => { window.received.push(args); });
    window.connection.on("add", (a, b) => a + b);
    window.connection.onclose((error) => { window.ended = String(error); });
    await window.connection.start();
    return window.connection.connectionId;
  }, { url, transport, protocol, bearer });
  return { page, context, id, received: () => page.evaluate(() => window.received) };
}

for (const transport of ["WebSockets", "ServerSentEvents", "LongPolling"]) {
  for (const protocol of ["json", "messagepack"]) {
    // Server-sent events carry text only.
    if (transport === "ServerSentEvents" && protocol === "messagepack") continue;

    test(`Chromium, ${transport}, ${protocol}: messages arrive once, in order and complete; invocations return results; the close has a reason`, async () => {
      const hub = freshHub();
      const url = `${sandbox.endpoints.east}/client/?hub=${hub}`;
      const { page, context, id, received } = await connected(url, transport, protocol, await token(hub, "ann"));
      for (let number = 0; number < 20; number++) await send(`${hub}/users/ann/:send`, "t", number);
      await send(`${hub}/:send`, "t", ...VALUES);
      await until(async () => (await received()).length >= 21);
      assert.deepEqual(await received(), [...Array.from({ length: 20 }, (_, number) => [number]), VALUES]);
      const response = await rest("POST", `${hub}/connections/${id}/:invoke`, { target: "add", arguments: [40, 2] });
      assert.deepEqual([response.status, await response.json()], [200, { result: 42 }]);
      assert.equal((await rest("POST", `${hub}/:closeConnections?reason=enough`)).status, 204);
      await page.waitForFunction(() => window.ended);
      assert.match(await page.evaluate(() => window.ended), /Server returned an error on close: enough/);
      await context.close();
    });
  }
}

test("Chromium: an endpoint without TLS, for browsers that do not trust the sandbox", async () => {
  const hub = freshHub();
  const { context, received } = await connected(`${sandbox.control}/endpoints/west/client/?hub=${hub}`, "WebSockets", "json", await westToken(hub));
  await send(`${hub}/:send`, "t", "to west");
  await until(async () => (await received()).length === 1);
  await context.close();
});

// The gateway requests client tokens from the first endpoint only, so the test provides those of an application of
// west.
async function westToken(hub) {
  const response = await fetch(`${sandbox.control}/endpoints/west/negotiate?hub=${hub}`, { method: "POST" });
  return (await response.json()).accessToken;
}
