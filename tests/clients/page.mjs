// The sandbox's page in Chromium, operated through its controls.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test, { after } from "node:test";
import { close, open } from "./chromium.mjs";
import { freshHub, rest, send, until, sandbox } from "./support.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const ENDPOINTS = ["east", "west"];
after(close);

const arrived = (page, endpoint) => page.getByRole("log", { name: `Arrived on ${endpoint}` });
const endpointRegion = (page, endpoint) => page.getByRole("region", { name: endpoint });

// Opens the page, connected to both endpoints.
async function openConnected(options, user = "you") {
  const hub = freshHub();
  const opened = await open(options);
  await opened.page.goto(`${sandbox.page}?hub=${hub}&user=${user}`);
  for (const endpoint of ENDPOINTS) await endpointRegion(opened.page, endpoint).getByText("connected", { exact: true }).waitFor();
  return { hub, ...opened };
}

test("the sandbox prints the page's address first", () => {
  const stdout = readFileSync(process.env.SANDBOX_STDOUT, "utf8");
  assert.match(stdout, new RegExp(`^[^\n]*${sandbox.page}\n`));
});

test("a broadcast sent by REST through the gateway appears on both endpoints, once", async () => {
  const { page, hub, errors, context } = await openConnected();
  await send(`${hub}/:send`, "hello", "world", { a: [1.5, null] });
  for (const endpoint of ENDPOINTS) {
    await arrived(page, endpoint).getByText("hello").waitFor();
    assert.equal(await arrived(page, endpoint).getByText('"world", {"a":[1.5,null]}').count(), 1);
  }
  // Numbers that JavaScript cannot represent are shown unchanged.
  await rest("POST", `${hub}/:send`, '{"target":"long","arguments":[18446744073709551615]}');
  await arrived(page, "west").getByText("18446744073709551615").waitFor();
  assert.deepEqual(errors, []);
  await context.close();
});

test("the page shows connected clients with users and groups, and removes those that disconnect", async () => {
  const { page, hub, context } = await openConnected({}, "ann");
  const other = await openConnected();
  await other.page.goto(`${sandbox.page}?hub=${hub}&user=ben`);
  const clientList = page.getByRole("list", { name: "Connected to east" });
  await clientList.getByText("ben", { exact: true }).waitFor();
  assert.equal((await rest("PUT", `${hub}/users/ben/groups/admins`)).status, 200);
  await clientList.getByRole("button", { name: "admins" }).waitFor();
  assert.equal(await clientList.getByText("this page").count(), 1);
  await other.context.close();
  await clientList.getByText("ben", { exact: true }).waitFor({ state: "detached" });
  await context.close();
});

test("the page offers existing hubs", async () => {
  const { page, hub, context } = await openConnected();
  await page.reload();
  const offered = page.locator("#hubs option");
  await offered.first().waitFor({ state: "attached" });
  const values = await offered.evaluateAll((options) => options.map((option) => option.value));
  assert.equal(values.filter((value) => value === hub.toLowerCase()).length, 1);
  assert.equal(await page.getByRole("combobox", { name: "Hub" }).evaluate((input) => input.list?.id), "hubs");
  await context.close();
});

test("the form works by keyboard alone, and shows the gateway's response and where the message arrived", async () => {
  const { page, hub, context, errors } = await openConnected();
  const focused = () => page.evaluate(() => {
    const { activeElement: at } = document;
    const { outlineStyle, outlineWidth } = getComputedStyle(at);
    return { name: at.name || at.textContent.trim(), visible: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 };
  });
  const tabTo = async (name) => {
    for (let presses = 0; presses < 30; presses++) {
      await page.keyboard.press("Tab");
      const at = await focused();
      assert.ok(at.visible, `${at.name} has the focus and does not show it`);
      if (at.name === name) return;
    }
    assert.fail(`Tab does not lead to ${name}`);
  };
  await tabTo("to");
  await page.keyboard.type("a user");
  await tabTo("name");
  await page.keyboard.type("you");
  await tabTo("target");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("greet");
  await tabTo("args");
  await page.keyboard.press("Control+A");
  await page.keyboard.type('["by keyboard", 9007199254740993]');
  await tabTo("Send through the gateway");
  await page.keyboard.press("Enter");
  const result = page.getByRole("status", { name: "The gateway's response" });
  await result.getByText("202 Accepted").waitFor();
  await result.getByText(/x-request-id: \w+/).waitFor();
  for (const endpoint of ENDPOINTS) {
    await result.getByText(`arrived on ${endpoint}`).waitFor();
    await arrived(page, endpoint).getByText('"by keyboard", 9007199254740993').waitFor();
  }
  const curl = await page.getByRole("region", { name: "The same call in a terminal" }).textContent();
  assert.ok(curl.includes(`${sandbox.gateway}/api/hubs/${hub}/users/you/:send`), curl);
  assert.deepEqual(errors, []);
  await context.close();
});

test("the form shows the error kind of a rejected call, and does not send invalid JSON", async () => {
  const { page, context } = await openConnected();
  const result = page.getByRole("status", { name: "The gateway's response" });
  const argumentsField = page.getByLabel("Arguments");
  await argumentsField.fill("[1,");
  await page.getByText("Enter a JSON array").waitFor();
  await page.getByRole("button", { name: "Send through" }).click();
  assert.equal(await argumentsField.getAttribute("aria-invalid"), "true");
  await result.getByText("appears here").waitFor();
  await argumentsField.fill("[1]");
  await page.getByRole("combobox", { name: "To" }).selectOption("users");
  await page.getByLabel("Its name").fill("x".repeat(17_000));
  await page.getByRole("button", { name: "Send through" }).click();
  await result.getByText(/^4\d\d/).waitFor();
  await result.getByText(/^signalr-gateway-error: \w+/).waitFor();
  await context.close();
});

test("without a gateway in front, the page says so and shows how to send by another one", async () => {
  const { page, context } = await open();
  await page.route("**/sandbox", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...await response.json(), gateway: null, admin: null } });
  });
  await page.goto(sandbox.page);
  await endpointRegion(page, "east").getByText("connected", { exact: true }).waitFor();
  await page.getByText("no gateway in front").waitFor();
  assert.equal(await page.getByRole("button", { name: /^Send|^Add/ }).count(), 0);
  assert.match(await page.getByRole("region", { name: "The same call in a terminal" }).textContent(), /^curl -i -X POST 'http:\/\/YOUR-GATEWAY\/api\//);
  // Enter in a field also submits a form without a button.
  await page.getByLabel("Method").press("Enter");
  assert.equal(await page.getByRole("status", { name: "The gateway's response" }).count(), 0);
  await context.close();
});

test("the page shows no connected clients once the sandbox has stopped", async () => {
  const { page, context } = await openConnected();
  const clientList = page.getByRole("list", { name: "Connected to east" });
  await clientList.getByText("this page").waitFor();
  await page.route("**/sandbox/connections?*", (route) => route.abort());
  await until(async () => (await clientList.getByText("this page").count()) === 0);
  await context.close();
});

test("the page shows the reason of a close and reconnects", async () => {
  const { page, hub, context } = await openConnected();
  assert.equal((await rest("POST", `${hub}/:closeConnections?reason=enough`)).status, 204);
  for (const endpoint of ENDPOINTS) {
    await arrived(page, endpoint).getByText("closed by the service: enough").waitFor();
    await endpointRegion(page, endpoint).getByText("connected", { exact: true }).waitFor();
  }
  await send(`${hub}/:send`, "hello");
  for (const endpoint of ENDPOINTS) await arrived(page, endpoint).getByText("hello").waitFor();
  await context.close();
});

const faultButton = (page, server, name) => page.getByRole("group", { name: `Faults of ${server}` }).getByRole("button", { name, exact: true });
const result = (page) => page.getByRole("status", { name: "The gateway's response" });
const sendForm = (page) => page.getByRole("button", { name: "Send through" }).click();

async function withoutFaults() {
  await fetch(`${sandbox.control}/sandbox/faults`, { method: "DELETE" });
  // An endpoint whose circuit is open is not called at first.
  await until(async () => (await rest("POST", `${freshHub()}/:send`, { target: "t", arguments: [] })).status === 202);
}

test("one click breaks an endpoint, the response shows the outcome at each, and one click repairs it", async () => {
  const { page, hub, context } = await openConnected();
  const west = endpointRegion(page, "west");
  try {
    await faultButton(page, "west", "Down").click();
    await west.getByText("down", { exact: true }).waitFor();
    // Its clients are gone, too.
    await west.getByText("No client").waitFor({ state: "detached" });
    await until(async () => (await page.getByRole("list", { name: "Connected to west" }).getByText("this page").count()) === 0);
    assert.equal(await faultButton(page, "west", "Down").getAttribute("aria-pressed"), "true");
    await sendForm(page);
    const outcomes = result(page).getByRole("list", { name: "Outcome at each endpoint" });
    await outcomes.getByText("east: accepted (202)").waitFor();
    await outcomes.getByText(/^west: (not_sent|no_answer)/).waitFor();
    await result(page).getByText("signalr-gateway-error: partial_delivery").waitFor();
    await faultButton(page, "west", "Down").click();
    await west.getByText("connected", { exact: true }).waitFor();
    assert.equal(await faultButton(page, "west", "Down").getAttribute("aria-pressed"), "false");
  } finally {
    await withoutFaults();
  }
  await send(`${hub}/:send`, "hello");
  await arrived(page, "west").getByText("hello").waitFor();
  await context.close();
});

test("each fault of the panel replaces the one before, has its effect, and is removed with all others", async () => {
  const { page, context, errors } = await openConnected();
  const refused = async (fault, outcome) => {
    await faultButton(page, "west", fault).click();
    await until(async () => (await faultButton(page, "west", fault).getAttribute("aria-pressed")) === "true");
    // After a 429, the gateway does not call the endpoint until `Retry-After` has passed.
    await until(async () => {
      await sendForm(page);
      return await result(page).getByText(outcome).waitFor({ timeout: 500 }).then(() => true, () => false);
    });
    assert.equal(await page.getByRole("group", { name: "Faults of west" }).getByRole("button", { pressed: true }).count(), 1);
  };
  try {
    await refused("429", /^west: throttled/);
    await endpointRegion(page, "west").getByText("connected · answers 429").waitFor();
    await refused("Token refused", /^west: refused/);
    for (const name of ["Down", "Slow (3 s)", "429", "Secret refused"]) {
      await faultButton(page, "Entra", name).click();
      await until(async () => (await faultButton(page, "Entra", name).getAttribute("aria-pressed")) === "true");
    }
    // A fault that no button sets is shown as well.
    await fetch(`${sandbox.control}/sandbox/faults?server=east`, { method: "POST", headers: { "content-type": "application/json" }, body: '{"fault":"hang","path_prefix":"/none"}' });
    await page.getByRole("group", { name: "Faults of east" }).getByText("other faults").waitFor();
    await page.getByRole("button", { name: "Remove all faults" }).click();
    await until(async () => (await page.getByRole("button", { pressed: true }).count()) === 0);
    assert.deepEqual(await (await fetch(`${sandbox.control}/sandbox/faults`)).json(), {});
    assert.equal(await page.getByRole("button", { name: "Remove all faults" }).count(), 0);
  } finally {
    await withoutFaults();
  }
  assert.deepEqual(errors, []);
  await context.close();
});

test("faults are turned on and off by keyboard", async () => {
  const { page, context } = await openConnected();
  try {
    await faultButton(page, "west", "Slow (3 s)").focus();
    await page.keyboard.press("Space");
    await until(async () => (await faultButton(page, "west", "Slow (3 s)").getAttribute("aria-pressed")) === "true");
    const focused = await page.evaluate(() => document.activeElement.textContent);
    assert.equal(focused, "Slow (3 s)");
    await page.keyboard.press("Enter");
    await until(async () => (await faultButton(page, "west", "Slow (3 s)").getAttribute("aria-pressed")) === "false");
  } finally {
    await withoutFaults();
  }
  await context.close();
});

test("a click on a user, a connection or a group fills the form", async () => {
  const { page, hub, context } = await openConnected({}, "ann");
  await rest("PUT", `${hub}/users/ann/groups/admins`);
  const clientList = page.getByRole("list", { name: "Connected to east" });
  const filled = async () => [await page.getByRole("combobox", { name: "To" }).inputValue(), await page.getByLabel("Its name").inputValue()];
  await clientList.getByRole("button", { name: "ann", exact: true }).click();
  assert.deepEqual(await filled(), ["users", "ann"]);
  const connection = clientList.locator("button.mono");
  const id = await connection.textContent();
  await connection.focus();
  await page.keyboard.press("Enter");
  assert.deepEqual(await filled(), ["connections", id]);
  await clientList.getByRole("button", { name: "admins" }).click();
  assert.deepEqual(await filled(), ["groups", "admins"]);
  await sendForm(page);
  await arrived(page, "east").getByText("hello").waitFor();
  await context.close();
});

test("an edited hub has no effect until the page listens to it", async () => {
  const { page, hub, context } = await openConnected();
  await page.getByRole("combobox", { name: "Hub" }).fill("another");
  await page.getByText(`Still listening to ${hub} as you.`).waitFor();
  await sendForm(page);
  await arrived(page, "east").getByText("hello").waitFor();
  const curl = await page.getByRole("region", { name: "The same call in a terminal" }).textContent();
  assert.ok(curl.includes(`/api/hubs/${hub}/`), curl);
  // The list of connections is updated every two seconds.
  await rest("PUT", `${hub}/users/you/groups/g`);
  await page.getByRole("list", { name: "Connected to east" }).getByRole("button", { name: "g", exact: true }).waitFor();
  const other = freshHub();
  await page.getByRole("combobox", { name: "Hub" }).fill(other);
  await page.getByRole("button", { name: "Listen" }).click();
  await page.getByRole("heading", { name: `Send to ${other}` }).waitFor();
  assert.equal(await page.getByText("Still listening").count(), 0);
  for (const endpoint of ENDPOINTS) await endpointRegion(page, endpoint).getByText("connected", { exact: true }).waitFor();
  await sendForm(page);
  await arrived(page, "west").getByText("hello").waitFor();
  await context.close();
});

test("a page of another origin cannot send through the sandbox", async () => {
  const { page, context } = await open();
  // A name of this host, but another origin than that of the page.
  await page.goto(sandbox.page.replace("127.0.0.1", "localhost"));
  const outcome = await page.evaluate((url) => fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ method: "POST", path: "/api/hubs/chat/:send", body: "{}" }),
  }).then((response) => response.status, () => "rejected"), `${sandbox.page}sandbox/relay`);
  assert.equal(outcome, "rejected");
  await context.close();
});

for (const colorScheme of ["light", "dark"]) {
  for (const viewport of [{ width: 1280, height: 860 }, { width: 390, height: 844 }]) {
    test(`axe finds no accessibility violations: ${colorScheme}, ${viewport.width} wide`, async () => {
      const { page, hub, context } = await openConnected({ colorScheme, viewport });
      await send(`${hub}/:send`, "hello", "world");
      await arrived(page, "west").getByText("hello").waitFor();
      await page.getByRole("button", { name: "Send through" }).click();
      await page.getByText("arrived on west").waitFor();
      await faultButton(page, "west", "Down").click();
      await endpointRegion(page, "west").getByText("down", { exact: true }).waitFor();
      await page.getByRole("combobox", { name: "Hub" }).fill("another");
      await page.getByRole("button", { name: "Send through" }).click();
      await page.getByText(/^west: /).waitFor();
      if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${colorScheme}-${viewport.width}.png`, fullPage: true });
      await until(async () => (await page.evaluate(() => document.getAnimations().length)) === 0);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run());
      assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), []);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "the page scrolls horizontally");
      await withoutFaults();
      await context.close();
    });
  }
}
