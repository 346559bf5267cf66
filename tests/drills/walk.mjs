// Starts one gateway for each drill and one Prometheus for all, breaks the gateways at the same time, and records what an operator
// sees: the log line, the verdict of the status page, its picture, and the alerts with the time after which they fire. Ends with 1
// if something that the drill expects is missing.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { close, open } from "../clients/chromium.mjs";
import { FIRST_SCREEN, layoutFaults } from "../clients/layout.mjs";
import { DRILLS } from "./drills.mjs";
import { Gateway, pause } from "./gateway.mjs";
import { startPrometheus } from "./prometheus.mjs";
import { faults, row, HEAD } from "./report.mjs";

const OUTPUT = process.env.DRILLS ?? fileURLToPath(new URL("../../target/drills", import.meta.url));
// Time before the gateways are broken, in which Prometheus scrapes the counters as they start.
const BEFORE = 75_000;
const LONGEST = Number(process.env.DRILL_MINUTES ?? 20) * 60_000;
const chosen = DRILLS.filter(({ name }) => process.argv.length < 3 || process.argv.slice(2).some((part) => name.includes(part)));
const folder = mkdtempSync(join(tmpdir(), "drills-"));
mkdirSync(OUTPUT, { recursive: true });

const runs = [];
let prometheus;

// Takes pictures of the status page: the first screen, all of it, and all of it on a phone. Notes what overflows or is cut off.
async function pictures(run, name) {
  for (const width of [1280, 390]) {
    const { page, context } = await open({ viewport: { width, height: FIRST_SCREEN } });
    await page.goto(run.gateway.admin);
    await page.getByText(/^live, /).waitFor();
    run.layout.push(...await layoutFaults(page));
    if (width === 1280) await page.screenshot({ path: join(OUTPUT, `${name}.png`) });
    await page.screenshot({ path: join(OUTPUT, `${name}-${width === 1280 ? "full" : width}.png`), fullPage: true });
    await context.close();
  }
}

// Notes the alerts, and the first verdict that is not good.
async function observe(run, alerts) {
  for (const alert of alerts.filter(({ job }) => job === run.drill.name)) {
    const key = alert.name;
    const known = run.alerts.get(key) ?? { ...alert, pending: Date.now() - run.broken };
    if (alert.state === "firing") known.fired ??= Date.now() - run.broken;
    run.alerts.set(key, known);
  }
  const { verdict } = await run.gateway.status();
  if (verdict.state !== "healthy") run.verdict ??= { ...verdict, after: Date.now() - run.broken };
  run.last = verdict;
  const expected = run.drill.alerts.every((name) => run.alerts.get(name)?.fired !== undefined);
  if (expected && run.verdict && !run.complete) {
    run.complete = true;
    await pictures(run, run.drill.name);
    console.log(`${run.drill.name}: ${[...run.alerts].map(([name, { fired }]) => `${name} ${fired ?? "pending"}`).join(", ")}`);
  }
}

try {
  for (const drill of chosen) {
    runs.push({ drill, gateway: await Gateway.start(drill, folder), alerts: new Map(), layout: [] });
  }
  const started = Date.now();
  prometheus = await startPrometheus(folder, runs.map(({ drill, gateway }) => [drill.name, new URL(gateway.admin).host]));
  console.log(`started ${runs.length} gateways`);
  let stopped = false;
  const traffic = runs.map(async (run) => {
    while (!stopped) {
      await run.gateway.send(run.drill.hub);
      await pause(500);
    }
  });
  await pause(BEFORE - (Date.now() - started));
  for (const run of runs) {
    const now = Date.now();
    run.broken = (await run.drill.break?.(run.gateway)) ?? now;
  }
  console.log("broken");
  const deadline = Date.now() + LONGEST;
  while (Date.now() < deadline && !runs.every(({ complete }) => complete)) {
    const alerts = await prometheus.alerts();
    await Promise.all(runs.map((run) => observe(run, alerts)));
    await pause(2000);
  }
  for (const run of runs.filter(({ complete }) => !complete)) await pictures(run, run.drill.name);
  await Promise.all(runs.map((run) => run.drill.end?.(run.gateway)));
  stopped = true;
  await Promise.all(traffic);
  const missing = runs.flatMap((run) => faults(run).map((fault) => `${run.drill.name}: ${fault}`));
  const table = [...HEAD, ...runs.map(row)].join("\n");
  writeFileSync(join(OUTPUT, "drills.md"), `${table}\n`);
  for (const { drill, gateway } of runs) {
    writeFileSync(join(OUTPUT, `${drill.name}.log`), gateway.lines.map((line) => JSON.stringify(line)).join("\n"));
  }
  console.log(`${table}\n\n${missing.join("\n")}`);
  process.exitCode = missing.length ? 1 : 0;
} finally {
  prometheus?.stop();
  await Promise.all(runs.map(({ gateway }) => gateway.stop()));
  await close();
  rmSync(folder, { recursive: true, force: true });
}
