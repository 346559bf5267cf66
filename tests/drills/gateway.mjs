// A gateway of a drill, in front of a sandbox of its own.

import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startSandbox } from "../clients/sandbox-fixture.mjs";

const PROGRAM = process.env.SIGNALR_GATEWAY;
// The settings of all drills: a free port, and a stop without a delay.
const SET = ["admin.bind=127.0.0.1:0", "listeners.default.bind=127.0.0.1:0", "shutdown.delay=0s"];
const ROUTES = `
[[routes]]
name = "everywhere"
pick = "all"
endpoints = ["east", "west"]
match = { hub = "all" }

[[routes]]
name = "east"
endpoints = ["east"]
`;

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Waits until `condition` returns something true, and returns it.
export async function until(what, condition, seconds = 60) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await pause(100);
  }
}

export class Gateway {
  // `drill` has what the drill changes: `description` of the sandbox, `lifetime` of tokens, `change` of the configuration, `wrap` of
  // the command, `reads` (whether the log is read).
  static async start(drill, folder) {
    const files = join(folder, drill.name);
    const args = ["--files", files];
    if (drill.description) {
      writeFileSync(join(folder, `${drill.name}-sandbox.toml`), drill.description(folder));
      args.push("--config", join(folder, `${drill.name}-sandbox.toml`));
    }
    const gateway = new Gateway();
    gateway.sandbox = await startSandbox({ program: PROGRAM, args });
    gateway.config = join(files, "drill.toml");
    const text = readFileSync(gateway.sandbox.config, "utf8").replace(/\n\[\[routes\]\][\s\S]*?(?=\n\[shutdown\])/, "");
    gateway.write(text + ROUTES + (drill.more ?? ""));
    if (drill.lifetime) await gateway.control("POST", "tokens", { lifetime_secs: drill.lifetime });
    await drill.before?.(gateway);
    const ready = join(files, "drill-ready.json");
    const set = SET.flatMap((one) => ["--set", one]);
    const command = [PROGRAM, "run", "--config", gateway.config, ...set, "--ready-file", ready];
    const [program, ...rest] = drill.wrap ? drill.wrap(command) : command;
    gateway.started = Date.now();
    gateway.process = spawn(program, rest, { stdio: ["ignore", "ignore", "pipe"] });
    gateway.lines = [];
    let rest_of_line = "";
    gateway.process.stderr.setEncoding("utf8").on("data", (data) => {
      const lines = (rest_of_line + data).split("\n");
      rest_of_line = lines.pop();
      gateway.read(lines);
    });
    const addresses = await until(`${drill.name} serves`, () => {
      if (gateway.process.exitCode !== null) throw new Error(`${drill.name} ended: ${gateway.lines.map(JSON.stringify).join("\n")}`);
      try { return JSON.parse(readFileSync(ready, "utf8")); } catch { return undefined; }
    });
    gateway.admin = `http://${addresses.admin}/`;
    gateway.listener = addresses.listeners.default;
    return gateway;
  }

  // Adds lines of the log with the time at which they were read.
  read(lines) {
    for (const line of lines.filter(Boolean)) {
      try { this.lines.push({ at: Date.now(), ...JSON.parse(line) }); } catch { this.lines.push({ at: Date.now(), message: line }); }
    }
  }

  write(text) {
    this.text = text;
    writeFileSync(this.config, text);
  }

  // Sends a request to the sandbox's control listener.
  async control(method, what, body) {
    const response = await fetch(`${this.sandbox.control}/sandbox/${what}`, {
      method, headers: { "content-type": "application/json" }, body: body && JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${what}: ${await response.text()}`);
  }

  fault(server, fault, path_prefix) {
    return this.control("POST", `faults?server=${server}`, { fault, path_prefix });
  }

  // Sends a message to the clients of a hub. Resolves to the status, or to 0 if there is no response.
  async send(hub = "chat") {
    try {
      const response = await fetch(`http://${this.listener}/api/hubs/${hub}/:send?api-version=2024-12-01`, {
        method: "POST", headers: { "content-type": "application/json" }, body: '{"target":"t","arguments":[]}',
        signal: AbortSignal.timeout(10_000),
      });
      await response.arrayBuffer();
      return response.status;
    } catch {
      return 0;
    }
  }

  async status() {
    return (await fetch(`${this.admin}status`)).json();
  }

  async stop() {
    this.process?.stderr.resume();
    this.process?.kill();
    await this.sandbox?.stop();
  }
}
