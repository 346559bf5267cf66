// The fixture that test suites copy: it starts a sandbox, and leaves none behind.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { startSandbox } from "./sandbox-fixture.mjs";
import { until } from "./support.mjs";

const responds = (url) => fetch(`${url}/api/health`).then(() => true, () => false);

test("a test suite starts a sandbox, sends through its gateway and stops it", async () => {
  const sandbox = await startSandbox();
  assert.equal(sandbox.version, 1);
  const response = await fetch(`${sandbox.gateway}/api/hubs/chat/:send?api-version=2024-12-01`, {
    method: "POST", headers: { "content-type": "application/json" }, body: '{"target":"hello","arguments":[]}',
  });
  assert.equal(response.status, 202);
  const { stop, ...ready } = sandbox;
  assert.deepEqual(await (await fetch(`${sandbox.control}/sandbox/ready`)).json(), ready);
  await stop();
  assert.equal(await responds(sandbox.gateway), false);
  assert.equal(existsSync(sandbox.files), false);
});

test("a sandbox ends when the process that started it is killed", async () => {
  const script = `import { startSandbox } from "./sandbox-fixture.mjs";
    const sandbox = await startSandbox();
    console.log(sandbox.gateway);
    setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ["--input-type=module", "--eval", script], { cwd: import.meta.dirname, stdio: ["ignore", "pipe", "inherit"] });
  const gateway = String((await parent.stdout.iterator().next()).value).trim();
  assert.equal(await responds(gateway), true);
  parent.kill("SIGKILL");
  await until(async () => !await responds(gateway));
});

test("a script that does nothing but stop its sandbox ends in order", async () => {
  const folder = await mkdtemp(join(tmpdir(), "program-"));
  try {
    // Its log stays open for longer than it runs.
    const program = join(folder, "signalr-gateway");
    await writeFile(program, '#!/bin/sh\n"$SIGNALR_GATEWAY" "$@"\nsleep 0.5 <&- >&- &\n', { mode: 0o755 });
    const script = `import { startSandbox } from "./sandbox-fixture.mjs";
      const sandbox = await startSandbox({ program: process.argv[1] });
      await sandbox.stop();`;
    const options = { cwd: import.meta.dirname, stdio: ["ignore", "inherit", "inherit"] };
    const child = spawn(process.execPath, ["--input-type=module", "--eval", script, program], options);
    assert.equal(await new Promise((resolve) => { child.once("close", resolve); }), 0);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("a sandbox that cannot start is an error with its log", async () => {
  await assert.rejects(startSandbox({ args: ["--config", "/nonexistent.toml"] }), /did not start: it ended with 2\n[^]*nonexistent\.toml/);
});
