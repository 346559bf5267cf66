// What the tests share: where the sandbox is, and calls of the gateway in front of it. `run` starts it and says so.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export const where = JSON.parse(readFileSync(process.env.SANDBOX, "utf8"));
const VERSION = "api-version=2024-12-01";
let hubs = 0;

// Each test has a hub of its own, so that none hears another.
export const freshHub = () => `hub${process.pid}x${++hubs}`;

// A call through the gateway. A body that is text goes out as it is, any other as JSON.
export async function rest(method, path, body, contentType = "application/json") {
  const separator = path.includes("?") ? "&" : "?";
  return fetch(`${where.gateway}/api/hubs/${path}${separator}${VERSION}`, {
    method,
    headers: body === undefined ? {} : { "content-type": contentType },
    body: typeof body === "object" && contentType === "application/json" ? JSON.stringify(body) : body,
  });
}

export async function send(path, target, ...args) {
  const answer = await rest("POST", path, { target, arguments: args });
  assert.equal(answer.status, 202, await answer.text());
}

export async function token(hub, user) {
  const answer = await rest("POST", `${hub}/:generateToken?userId=${user}&minutesToExpire=5`);
  assert.equal(answer.status, 200);
  return (await answer.json()).token;
}

export async function until(condition) {
  const deadline = Date.now() + 15000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, "it did not happen within 15 seconds");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
