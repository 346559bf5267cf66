// The sandbox does what recorded.json says, and the comparison with a resource finds a difference. The resource is another sandbox.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import test from "node:test";
import { sandbox } from "../support.mjs";

// Runs the comparison without blocking this process.
function conformance(environment = {}) {
  const { CONFORMANCE_CONNECTION_STRING: _string, CONFORMANCE_URL: _url, ...inherited } = process.env;
  const main = new URL("main.mjs", import.meta.url).pathname;
  const child = spawn(process.execPath, [main], { env: { ...inherited, ...environment }, stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => { output += text; });
  return new Promise((resolve) => { child.once("close", (status) => resolve({ status, output })); });
}

test("the sandbox does what is recorded, and the facts that rest on reading alone are listed", async () => {
  const { status, output } = await conformance();
  console.log(output);
  assert.match(output, /The sandbox differs from recorded\.json in 0 of \d+ facts\./);
  assert.match(output, /facts rest on reading alone/);
  assert.match(output, /SKIPPED: the comparison with a real Azure SignalR resource/);
  assert.equal(status, 0);
});

test("the comparison with a resource prints each difference, and nothing else", async () => {
  const west = { CONFORMANCE_CONNECTION_STRING: sandbox.connection_strings.west };
  const same = await conformance(west);
  assert.match(same.output, /differs from the resource in 0 of \d+ facts/);
  assert.equal(same.status, 0);
  const faults = `${sandbox.control}/sandbox/faults?server=west`;
  const headers = { "content-type": "application/json" };
  const body = '{"fault":{"answer":{"status":204,"headers":[["x-trace","1"]]}},"path_prefix":"/api/health"}';
  assert.equal((await fetch(faults, { method: "POST", headers, body })).status, 204);
  try {
    const { status, output } = await conformance(west);
    assert.equal(status, 1);
    assert.match(output, /differs from the resource in 1 of/);
    assert.match(output, /DIFFERS {2}health: HEAD without a token\n +read, not proven: declared in Microsoft's API definition/);
    assert.match(output, /status\n {4}the resource: 204\n {4}the sandbox: 200/);
    assert.match(output, /headers\.x-trace\n {4}the resource: "1"\n {4}the sandbox: nothing/);
  } finally {
    await fetch(faults, { method: "DELETE" });
  }
});
