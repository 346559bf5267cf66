// The gateway's status page in Chromium: healthy, and with seven problems. Each test runs a gateway of its own against one
// sandbox.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { close, open } from "./chromium.mjs";
import { FIRST_SCREEN, layoutFaults } from "./layout.mjs";
import { until } from "./support.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const WIDTHS = [390, 1280];
// A folder for pictures of every state, for people to look at.
const PICTURES = process.env.STATUS_PICTURES;
const folder = mkdtempSync(join(tmpdir(), "status-"));
const processes = new Set();
let sandbox;

// Runs the program until the test ends. Resolves to the content of its ready file.
async function start(name, ...options) {
  const ready = join(folder, `${name}.json`);
  const program = spawn(process.env.SIGNALR_GATEWAY, [...options, "--ready-file", ready], { stdio: ["ignore", "ignore", "pipe"] });
  processes.add(program);
  let log = "";
  program.stderr.on("data", (data) => { log += data; });
  let content;
  await until(() => {
    assert.equal(program.exitCode, null, log);
    try { content = JSON.parse(readFileSync(ready, "utf8")); } catch { return false; }
    return true;
  });
  return { ...content, stop: () => { processes.delete(program); program.kill(); } };
}

before(async () => {
  sandbox = await start("sandbox", "sandbox", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--files", join(folder, "files"));
});
after(async () => {
  for (const program of processes) program.kill();
  await close();
  rmSync(folder, { recursive: true });
});

async function faults(query, init) {
  const response = await fetch(`${sandbox.page}sandbox/faults${query}`, init);
  assert.ok(response.ok, await response.text());
}

// Sets a fault until the gateway of the test stops.
const fault = (server, body) => faults(`?server=${server}`, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
});

// Runs a gateway whose circuits open at the first failure, while `use` looks at its page. Removes all faults at the end.
async function withGateway(name, use, change = (config) => config) {
  const config = join(folder, "files", `${name}.toml`);
  const write = (text) => writeFileSync(config, text);
  const text = readFileSync(sandbox.config, "utf8");
  write(change(text));
  const set = ["health.failures=1", "health.failure_ratio=0.0001", "health.pause=1h", "shutdown.delay=0s"].flatMap((one) => ["--set", one]);
  let gateway;
  try {
    gateway = await start(name, "run", "--config", config, ...set, "--set", "admin.bind=127.0.0.1:0", "--set", "listeners.default.bind=127.0.0.1:0");
    const admin = `http://${gateway.admin}/`;
    const send = (hub = "chat") => fetch(`http://${gateway.listeners.default}/api/hubs/${hub}/:send?api-version=2024-12-01`, {
      method: "POST", headers: { "content-type": "application/json" }, body: '{"target":"t","arguments":[]}',
    });
    const status = async () => (await fetch(`${admin}status`)).json();
    await use({ admin, send, status, write, text });
  } finally {
    gateway?.stop();
    await faults("", { method: "DELETE" });
  }
}

// Opens the page in every width and colour scheme, and checks that the verdict is as expected and everything reachable.
async function look(name, admin, word, line, check = async () => {}) {
  for (const width of WIDTHS) {
    for (const colorScheme of ["light", "dark"]) {
      const { page, errors, context } = await open({ colorScheme, viewport: { width, height: FIRST_SCREEN } });
      await page.goto(admin);
      const verdict = page.getByRole("status");
      assert.equal(await verdict.getAttribute("aria-live"), "polite");
      await verdict.getByRole("heading", { name: word, exact: true }).waitFor();
      await verdict.getByText(line).waitFor();
      assert.ok((await verdict.locator("p").count()) <= 3);
      await page.getByText(/^live, /).waitFor();
      await check(page);
      assert.deepEqual(await layoutFaults(page), [], name);
      await checkProblem(page, (await (await fetch(`${admin}status`)).json()).verdict);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run());
      assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], `${name} at ${width}, ${colorScheme}`);
      assert.deepEqual(errors, []);
      if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}-${width}-${colorScheme}.png`), fullPage: true });
      await context.close();
    }
  }
}

// Checks that the banner has all of the problem.
async function checkProblem(page, { state, problem }) {
  if (state === "healthy") return assert.equal(problem, undefined);
  const banner = page.locator("#verdict");
  const text = (await banner.innerText()).replaceAll(/[`\s]+/g, "");
  const has = (part) => assert.ok(text.includes(part.replaceAll(/[`\s]+/g, "")), `the banner lacks ${part}: ${text}`);
  for (const { name, value } of problem.details ?? []) [name, value].forEach(has);
  for (const { command } of problem.commands ?? []) if (command) has(command);
  [problem.callers_get, problem.once_repaired].forEach(has);
  assert.ok(await banner.getByRole("link", { name: /^Runbook/ }).getAttribute("href") === problem.runbook);
  if (problem.entry) {
    const target = await banner.getByRole("link", { name: `${problem.entry[1]} on this page` }).getAttribute("href");
    assert.equal(await page.locator(target).count(), 1, "the link has a target");
  }
}

const inState = (status, state) => until(async () => (await status()).verdict.state === state);
const entry = (page, title) => page.getByRole("listitem").filter({ has: page.getByRole("heading", { name: title, exact: true }) }).first();
const east = (page) => entry(page, "Endpoint east");

test("healthy: both endpoints and credentials, and figures that move without a reload", async () => {
  await withGateway("healthy", async ({ admin, send, status }) => {
    await inState(status, "healthy");
    for (let call = 0; call < 50; call++) await send();
    await until(async () => (await status()).traffic.last_minute.calls_per_second > 0);
    await look("healthy", admin, "Healthy", /Both endpoints accept calls/, async (page) => {
      for (const name of ["Traffic", "Endpoints", "Credentials", "Routes", "Listeners"]) {
        await page.getByRole("region", { name, exact: true }).waitFor();
      }
      await page.getByRole("img", { name: /^response times of east .* p50 \d/ }).waitFor();
      await page.getByRole("columnheader", { name: "Endpoints" }).waitFor();
    });
    const { page, context } = await open();
    await page.goto(admin);
    const shown = () => page.getByRole("img", { name: /^calls per second/ }).getAttribute("aria-label");
    const first = await shown();
    for (let call = 0; call < 200; call++) await send();
    await until(async () => (await shown()) !== first);
    await context.close();
  });
});

test("dead credential: the verdict names it, its effect and the remedy, although the process is ready", async () => {
  const tenant = /tenant = "([^"]+)"/.exec(readFileSync(sandbox.config, "utf8"))[1];
  const body = '{"error":"invalid_client","error_description":"AADSTS7000215: no","error_codes":[7000215]}';
  await fault("entra", { fault: { answer: { status: 401, content_type: "application/json", body } }, path_prefix: `/${tenant}` });
  await withGateway("dead-credential", async ({ admin, status }) => {
    await inState(status, "broken");
    await until(async () => (await status()).ready);
    await look("dead-credential", admin, "Broken", /^1 of 2 credentials is broken: east \(AADSTS7000215: the client secret is wrong\)/, async (page) => {
      await page.getByRole("status").getByText(/^Calls to east fail since \d\d:\d\d(:\d\d)? UTC/).waitFor();
      await page.getByRole("status").getByText(/^Do this: put the value \(not the id\) of a secret/).waitFor();
      await page.getByText("ready, takes calls").waitFor();
      await east(page).getByText("no token since").waitFor();
    });
  });
});

test("endpoint down: the verdict has the reason", async () => {
  await withGateway("endpoint-down", async ({ admin, send, status }) => {
    await inState(status, "healthy");
    await fault("east", { fault: "refuse" });
    await send();
    await inState(status, "broken");
    await look("endpoint-down", admin, "Broken", /^1 of 2 endpoints: east at \S+ fails calls \(.*refused/, async (page) => {
      await east(page).getByText("circuit open since").waitFor();
      await page.getByRole("status").getByText(/^Do this: ./).waitFor();
    });
  });
});

test("401 of the endpoint: the verdict says that it refuses the token", async () => {
  await withGateway("endpoint-401", async ({ admin, send, status }) => {
    await inState(status, "healthy");
    await fault("east", { fault: { answer: { status: 401 } }, path_prefix: "/api/hubs" });
    await send();
    await inState(status, "broken");
    await look("endpoint-401", admin, "Broken", /^1 of 2 endpoints: east at \S+ refuses the gateway's token/, async (page) => {
      await east(page).getByText("refuses the token since").waitFor();
      await page.getByRole("status").getByText("does not accept tokens of this tenant").waitFor();
      await east(page).getByText("which needs no token").waitFor();
    });
  });
});

test("open circuit: the verdict says since when and why", async () => {
  await withGateway("open-circuit", async ({ admin, send, status }) => {
    await inState(status, "healthy");
    await fault("east", { fault: { answer: { status: 500 } }, path_prefix: "/api/hubs" });
    await send();
    await inState(status, "broken");
    await look("open-circuit", admin, "Broken", /^1 of 2 endpoints: east at \S+ fails calls \(the endpoint is not healthy/, async (page) => {
      await east(page).getByText(/circuit open since \d\d:\d\d(:\d\d)? UTC/).waitFor();
    });
  });
});

test("refused reload: the page has the problem, and calls go on", async () => {
  await withGateway("refused-reload", async ({ admin, status, write, text }) => {
    await inState(status, "healthy");
    write(text.replace('pick = "all"', 'pick = "al"'));
    await inState(status, "attention");
    await look("refused-reload", admin, "Needs attention", /^The last configuration was rejected/, async (page) => {
      const plain = (text) => text.replaceAll(/[`\s]+/g, "");
      const problem = plain((await status()).refused_reload).slice(0, 60);
      assert.equal(plain(await page.locator("main").innerText()).split(problem).length, 2, "the problem stands there once");
    });
  }, withRoute);
});

test("change that needs a restart: the page lists the keys", async () => {
  await withGateway("restart-only", async ({ admin, status, write, text }) => {
    await inState(status, "healthy");
    write(`${withRoute(text)}\n[process]\nworkers = 3\n`);
    await inState(status, "attention");
    await look("restart-only", admin, "Needs attention", /^Settings wait for a restart since .*: process\.workers/, async (page) => {
      assert.equal(await page.getByText("process.workers").count(), 1, "the key stands there once");
    });
  }, withRoute);
});

test("trace collector down: calls go on, and the page says what was lost and what to do", async () => {
  await withGateway("traces", async ({ admin, send, status }) => {
    await send();
    await until(async () => (await status()).tracing?.state === "failing");
    await look("traces", admin, "Needs attention", /^Traces cannot be exported since /, async (page) => {
      const traces = page.getByRole("region", { name: "Traces" });
      await traces.getByText("http://127.0.0.1:1/v1/traces").first().waitFor();
      await page.getByRole("status").getByText(/^Do this: start the collector/).waitFor();
      assert.equal(await page.getByText(/start the collector/i).count(), 1, "the remedy stands there once");
    });
  }, (text) => `${text}\n[tracing]\nendpoint = "http://127.0.0.1:1"\nsample = 1\n`);
});

const withRoute = (text) => (text.includes('pick = "all"') ? text : `${text}\n[[routes]]\nname = "everywhere"\nendpoints = ["east", "west"]\npick = "all"\n`);

test("a command can be copied without TLS, and the link to an entry opens it", async () => {
  await withGateway("copy", async ({ admin, send, status }) => {
    await inState(status, "healthy");
    await fault("east", { fault: { answer: { status: 403 } }, path_prefix: "/api/hubs" });
    await send();
    await inState(status, "broken");
    const { page, context, errors } = await open();
    // A host name that is no secure context, as of a gateway on another host.
    await page.goto(admin.replace("127.0.0.1", "gateway.test"));
    assert.equal(await page.evaluate(() => isSecureContext), false);
    const { command } = (await status()).verdict.problem.commands.find((one) => one.command);
    await page.getByRole("button", { name: "Copy command" }).first().click();
    await page.getByRole("button", { name: "Copied command" }).waitFor();
    const field = page.getByRole("textbox", { name: "Part of a name" });
    await field.focus();
    await page.keyboard.press("Control+V");
    assert.equal(await field.inputValue(), command);
    const steps = east(page).locator("details");
    assert.equal(await steps.getAttribute("open"), null);
    await page.getByRole("link", { name: "Endpoint east on this page" }).press("Enter");
    await until(async () => (await steps.getAttribute("open")) !== null);
    assert.ok(await east(page).evaluate((entry) => entry.matches(":target")));
    assert.deepEqual(errors, []);
    await context.close();
  }, (text) => text.replace("[admin]", '[admin]\nallowed_hosts = ["gateway.test"]'));
});

test("the page works by keyboard, keeps what a user opened, can be paused, and says when the gateway is gone", async () => {
  await withGateway("keyboard", async ({ admin, send, status }) => {
    await inState(status, "healthy");
    await fault("east", { fault: { answer: { status: 500 } }, path_prefix: "/api/hubs" });
    await send();
    await inState(status, "broken");
    const { page, context } = await open();
    await page.goto(admin);
    await page.getByText(/^live, /).waitFor();
    const details = east(page).locator("details");
    const summary = details.locator("summary");
    const open_at_first = await details.getAttribute("open");
    await summary.focus();
    await page.keyboard.press("Enter");
    const opened = await details.getAttribute("open");
    assert.notEqual(opened, open_at_first);
    const before = await page.locator(".live span").textContent();
    await until(async () => (await page.locator(".live span").textContent()) !== before);
    assert.equal(await details.getAttribute("open"), opened, "an update has undone it");
    assert.ok(await summary.evaluate((node) => node === document.activeElement), "an update has taken the focus");
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByText(/^paused, /).waitFor();
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByText(/^live, /).waitFor();
    await page.getByRole("textbox", { name: "Part of a name" }).fill("wes");
    await page.keyboard.press("Enter");
    await page.waitForURL(/name=wes/);
    assert.deepEqual(await page.getByRole("region", { name: "Endpoints" }).getByRole("heading", { level: 3 }).allTextContents(), ["west"]);
    await page.route(admin + "**", (route) => route.abort());
    await page.getByRole("alert").getByText("The gateway does not answer").waitFor();
    await context.close();
  });
});
