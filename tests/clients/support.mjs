// Shared by the tests: the sandbox's addresses, and calls through the gateway. `run` starts the sandbox.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export const sandbox = JSON.parse(readFileSync(process.env.SANDBOX, "utf8"));
const VERSION = "api-version=2024-12-01";
let hubs = 0;

// Each test has its own hub, so that none receives the messages of another.
export const freshHub = () => `hub${process.pid}x${++hubs}`;

// Sends a call through the gateway. A text body is sent unchanged, any other as JSON.
export async function rest(method, path, body, contentType = "application/json") {
  const separator = path.includes("?") ? "&" : "?";
  return fetch(`${sandbox.gateway}/api/hubs/${path}${separator}${VERSION}`, {
    method,
    headers: body === undefined ? {} : { "content-type": contentType },
    body: typeof body === "object" && contentType === "application/json" ? JSON.stringify(body) : body,
  });
}

export async function send(path, target, ...args) {
  const response = await rest("POST", path, { target, arguments: args });
  assert.equal(response.status, 202, await response.text());
}

export async function token(hub, user) {
  const response = await rest("POST", `${hub}/:generateToken?userId=${user}&minutesToExpire=5`);
  assert.equal(response.status, 200);
  return (await response.json()).token;
}

export async function until(condition) {
  const deadline = Date.now() + 15000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, "the condition was not met within 15 seconds");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
