// Compares the sandbox with recorded.json, and with a real Azure SignalR resource if the environment names one. See ../../README.md.

import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startSandbox } from "../sandbox-fixture.mjs";
import { BASES, observe } from "./cases.mjs";
import { differences } from "./compare.mjs";
import { parseConnectionString, Target } from "./target.mjs";

const RECORDED = new URL("recorded.json", import.meta.url);
const { values: options } = parseArgs({
  options: {
    record: { type: "boolean" }, // write what the sandbox does to recorded.json
    prove: { type: "boolean" }, // write into recorded.json which facts the resource has confirmed, and when
    json: { type: "string" }, // write observations and differences to a file
    endpoint: { type: "string", default: "east" }, // the sandbox's endpoint
  },
});

// Node reads the certificate authority when it starts, so a second process runs the cases.
async function withOwnSandbox() {
  const sandbox = await startSandbox();
  try {
    const authorities = join(sandbox.files, "authorities.pem");
    const other = process.env.NODE_EXTRA_CA_CERTS;
    writeFileSync(authorities, `${other ? readFileSync(other, "utf8") : ""}\n${sandbox.ca_pem}`);
    const env = { ...process.env, CONFORMANCE_SANDBOX: JSON.stringify(sandbox), NODE_EXTRA_CA_CERTS: authorities };
    return spawnSync(process.execPath, process.argv.slice(1), { env, stdio: "inherit" }).status ?? 1;
  } finally {
    await sandbox.stop();
  }
}

function realTarget() {
  const { CONFORMANCE_CONNECTION_STRING: text, CONFORMANCE_URL: url } = process.env;
  if (!text) return undefined;
  const { url: audience, key } = parseConnectionString(text);
  return new Target({ name: "the resource", url: (url ?? audience).replace(/\/$/, ""), audience, key });
}

const show = (value) => (value === undefined ? "nothing" : JSON.stringify(value));

// Prints the differences of two sets of observations, and returns how many facts differ.
function compare(expected, expectedName, actual, actualName, recorded) {
  let count = 0;
  for (const fact of new Set([...Object.keys(expected), ...Object.keys(actual)])) {
    const found = differences(expected[fact]?.observed, actual[fact]?.observed);
    if (found.length === 0) continue;
    count += 1;
    const { basis, source } = actual[fact] ?? expected[fact];
    const proven = recorded[fact]?.proven;
    console.log(`\nDIFFERS  ${fact}\n         ${proven ? `proven on ${proven}` : `read, not proven: ${BASES[basis]}`}${source ? ` (${source})` : ""}`);
    for (const { path, left, right } of found) {
      console.log(`  ${path || "observed"}\n    ${expectedName}: ${show(left)}\n    ${actualName}: ${show(right)}`);
    }
  }
  return count;
}

function listUnproven(recorded) {
  const unproven = Object.entries(recorded).filter(([, { proven }]) => !proven);
  console.log(`\n${unproven.length} of ${Object.keys(recorded).length} facts rest on reading alone: no real resource has confirmed them.`);
  for (const [basis, description] of Object.entries(BASES)) {
    const facts = unproven.filter(([, fact]) => fact.basis === basis).map(([fact]) => fact);
    if (facts.length) console.log(`\n  ${description}:\n    ${facts.join("\n    ")}`);
  }
}

async function main(sandbox) {
  const target = new Target({ name: "the sandbox", ...parseConnectionString(sandbox.connection_strings[options.endpoint]) });
  const observed = await observe(target);
  const recorded = JSON.parse(readFileSync(RECORDED, "utf8"));
  if (options.record) {
    for (const [fact, entry] of Object.entries(observed)) {
      const before = recorded[fact];
      entry.proven = before && differences(before.observed, entry.observed).length === 0 ? before.proven : null;
    }
    writeFileSync(RECORDED, `${JSON.stringify(observed, null, 1)}\n`);
    console.log(`recorded ${Object.keys(observed).length} facts`);
    return 0;
  }
  const changed = compare(recorded, "recorded", observed, "the sandbox", recorded);
  console.log(`\nThe sandbox differs from recorded.json in ${changed} of ${Object.keys(observed).length} facts.`);
  listUnproven(recorded);
  const real = realTarget();
  let wrong = 0;
  if (real) {
    console.log(`\nComparing the sandbox with ${real.audience} …`);
    const truth = await observe(real);
    wrong = compare(truth, "the resource", observed, "the sandbox", recorded);
    console.log(`\nThe sandbox differs from the resource in ${wrong} of ${Object.keys(truth).length} facts.`);
    if (options.prove) {
      const today = new Date().toISOString().slice(0, 10);
      for (const [fact, entry] of Object.entries(recorded)) {
        entry.proven = differences(truth[fact]?.observed, entry.observed).length === 0 ? today : null;
      }
      writeFileSync(RECORDED, `${JSON.stringify(recorded, null, 1)}\n`);
    }
    if (options.json) writeFileSync(options.json, `${JSON.stringify({ resource: truth, sandbox: observed }, null, 1)}\n`);
  } else {
    console.log("\nSKIPPED: the comparison with a real Azure SignalR resource. Set CONFORMANCE_CONNECTION_STRING to the connection string of\n" +
      "         one in serverless mode; CONFORMANCE_URL replaces its URL. config/guide/emulator.md describes it.");
  }
  return changed || wrong ? 1 : 0;
}

const own = process.env.CONFORMANCE_SANDBOX;
process.exit(own ? await main(JSON.parse(own)) : await withOwnSandbox());
