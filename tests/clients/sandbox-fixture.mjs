// Starts a sandbox for a test suite, and stops it: copy this file into your project. It needs no package.
//
// SIGNALR_GATEWAY names the program, which is otherwise searched in PATH.

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const START_TIMEOUT_MS = 60_000;

// Returns the content of the ready file, and `stop()`. `args` are further arguments, such as ["--config", "sandbox.toml"].
export async function startSandbox({ program = process.env.SIGNALR_GATEWAY ?? "signalr-gateway", args = [] } = {}) {
  const folder = await mkdtemp(join(tmpdir(), "sandbox-"));
  const readyFile = join(folder, "ready.json");
  const options = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ready-file", readyFile, "--exit-with-stdin"];
  const child = spawn(program, ["sandbox", ...options, ...args], { stdio: ["pipe", "ignore", "pipe"] });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text) => { log = (log + text).slice(-10_000); });
  let end;
  const ended = new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => resolve(`it ended with ${signal ?? code}`));
  }).then((reason) => { end = reason; });
  const stop = async () => {
    for (const handle of [child, child.stdin, child.stderr]) handle.ref();
    child.stdin.end();
    await ended;
    await rm(folder, { recursive: true, force: true });
  };
  const deadline = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    // The file is complete as soon as it exists.
    const text = await readFile(readyFile, "utf8").catch(() => undefined);
    if (text) {
      // A suite that forgets to stop the sandbox can end all the same, and the sandbox ends with it.
      for (const handle of [child, child.stdin, child.stderr]) handle.unref();
      return { ...JSON.parse(text), stop };
    }
    if (end === undefined && Date.now() > deadline) child.kill("SIGKILL");
    if (end !== undefined) {
      await rm(folder, { recursive: true, force: true });
      throw new Error(`${program} sandbox did not start: ${end}\n${log}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
