// A real Prometheus with the project's rules. Each drill is a job, because most rules aggregate by job.

import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { join } from "node:path";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { until } from "./gateway.mjs";

const RULES = fileURLToPath(new URL("../../config/prometheus/alerts.yaml", import.meta.url));
// As in most installations.
const INTERVAL = "15s";

const freePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

// Starts it. `targets` are the addresses of admin listeners by job.
export async function startPrometheus(folder, targets) {
  const file = join(folder, "prometheus.json");
  writeFileSync(file, JSON.stringify({
    global: { scrape_interval: INTERVAL, evaluation_interval: INTERVAL },
    rule_files: [RULES],
    scrape_configs: targets.map(([job, address]) => ({ job_name: job, static_configs: [{ targets: [address] }] })),
  }));
  const address = `127.0.0.1:${await freePort()}`;
  const child = spawn("prometheus", [
    `--config.file=${file}`, `--storage.tsdb.path=${join(folder, "prometheus")}`, `--web.listen-address=${address}`,
  ], { stdio: "ignore" });
  const get = async (path) => {
    const response = await fetch(`http://${address}/api/v1/${path}`);
    return (await response.json()).data;
  };
  await until("Prometheus serves", () => get("alerts").catch(() => undefined));
  // Resolves to the alerts of all jobs: `{ job, name, state, since, annotations }`.
  const alerts = async () => (await get("alerts")).alerts.map(({ labels, annotations, state, activeAt }) => (
    { job: labels.job, name: labels.alertname, state, since: Date.parse(activeAt), severity: labels.severity, annotations }
  ));
  return { address, alerts, stop: () => child.kill() };
}
