// The drills: how each breaks its gateway, and what an operator must see.
//
// `log` is the message of the line that names the cause, `verdict` what a line of the verdict has, `alerts` those that must fire.
// `early`: the line comes when the gateway starts. `break` may return the time at which the gateway broke.

import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { until } from "./gateway.mjs";

// Tokens that are renewed after 200 seconds.
const LIFETIME = 300;
const CERTIFICATE_SECONDS = 240;

// Creates a certificate with its key that expires after so many seconds. Returns its path.
function certificate(folder, seconds) {
  const own = join(folder, `certificate-${seconds}`);
  mkdirSync(own, { recursive: true });
  const time = (at) => new Date(at).toISOString().replace(/\.\d+/, "").replaceAll(/[-:T]/g, "");
  writeFileSync(join(own, "index.txt"), "");
  writeFileSync(join(own, "ca.cnf"), [
    "[ca]", "default_ca = own", "[own]", "database = index.txt", "new_certs_dir = .", "rand_serial = yes",
    "default_md = sha256", "policy = any", "[any]", "commonName = supplied",
  ].join("\n"));
  const openssl = (...args) => execFileSync("openssl", args, { cwd: own, stdio: "pipe" });
  openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=drill");
  openssl("ca", "-config", "ca.cnf", "-batch", "-notext", "-selfsign", "-keyfile", "key.pem", "-in", "csr.pem", "-out", "cert.pem",
    "-startdate", time(Date.now() - 3600_000), "-enddate", time(Date.now() + seconds * 1000));
  const both = join(own, "both.pem");
  writeFileSync(both, readFileSync(join(own, "cert.pem"), "utf8") + readFileSync(join(own, "key.pem"), "utf8"));
  return both;
}

// Returns the path of the certificate in a gateway's configuration.
const certificateOf = (gateway) => /certificate = "(.*)"/.exec(gateway.text)[1];

// Describes a sandbox whose endpoint east is called with a certificate.
const withCertificate = (seconds, offset = 0) => (folder) => {
  const file = certificate(folder, seconds);
  return `
[tenants.contoso]
id = "11111111-aaaa-4aaa-8aaa-111111111111"
[tenants.fabrikam]
id = "22222222-bbbb-4bbb-8bbb-222222222222"
[applications.gateway]
client_id = "44444444-dddd-4ddd-8ddd-444444444444"
tenant = "contoso"
secrets = [{ value = "not-a-secret" }]
certificates = ["${file}"]
[[service_principals]]
application = "gateway"
tenant = "fabrikam"
roles = { east = ["SignalR REST API Owner"], west = ["SignalR REST API Owner"] }
[endpoints.east]
tenant = "fabrikam"
[endpoints.west]
tenant = "fabrikam"
[tokens]
lifetime = "${LIFETIME}s"
clock_offset_secs = ${offset}
[gateway]
operations = ["messages"]
[gateway.credentials.east]
kind = "client_certificate"
application = "gateway"
certificate = "${file}"
`;
};

// Runs a command whose log is a file on a file system of 1 MiB.
const LOG_FOLDER = "/run";
const onSmallDisk = (command) => [
  "unshare", "--map-root-user", "--mount", "sh", "-c",
  `mount -t tmpfs -o size=1m log ${LOG_FOLDER} && exec "$0" "$@" 2>>${LOG_FOLDER}/log`, ...command,
];
const onDisk = (gateway, name) => `/proc/${gateway.process.pid}/root${LOG_FOLDER}/${name}`;

// Replaces a key of the section `[endpoints.east]`.
const inEast = (text, from, to) => text.replace(/(\[endpoints\.east\][\s\S]*?)(?=\n\[)/, (section) => section.replace(from, to));

const refuse = (status) => (gateway) => gateway.fault("east", { answer: { status } }, "/api/hubs");

export const DRILLS = [
  {
    name: "wrong-secret",
    title: "wrong secret",
    lifetime: LIFETIME,
    break: (gateway) => writeFileSync(join(gateway.sandbox.files, "client-secret"), "of-another-app"),
    log: /token not refreshed|no valid token/,
    verdict: /credential.* east .*secret/,
    alerts: ["SignalrGatewayCredentialPermanentFailure"],
  },
  {
    name: "expired-certificate",
    title: "expired certificate",
    description: withCertificate(CERTIFICATE_SECONDS),
    // It expires by itself.
    break: (gateway) => Date.parse(new X509Certificate(readFileSync(certificateOf(gateway))).validTo),
    log: /token not refreshed|no valid token/,
    verdict: /credential.*certificate.*expired/,
    alerts: ["SignalrGatewayCredentialUnusable", "SignalrGatewayTokenExpired"],
  },
  {
    name: "entra-down",
    title: "Entra down",
    lifetime: LIFETIME,
    break: (gateway) => gateway.fault("entra", "refuse"),
    log: /token not refreshed|no valid token/,
    verdict: /credential/,
    alerts: ["SignalrGatewayRenewalsFail", "SignalrGatewayTokenExpired"],
  },
  {
    name: "endpoint-down",
    title: "endpoint down",
    break: (gateway) => gateway.fault("east", "refuse"),
    log: /circuit is open/,
    verdict: /east at \S+ fails calls/,
    alerts: ["SignalrGatewayEndpointDown", "SignalrGatewayHighErrorRatio"],
  },
  {
    name: "dns",
    title: "DNS failure",
    break: (gateway) => gateway.write(inEast(gateway.text, /url = ".*"/, 'url = "https://nowhere.invalid"')),
    log: /circuit is open/,
    verdict: /east at \S+ fails calls.*name resolution/,
    alerts: ["SignalrGatewayEndpointDown", "SignalrGatewayHighErrorRatio"],
  },
  {
    name: "tls",
    title: "TLS failure: a certificate of an unknown CA",
    break: (gateway) => gateway.write(inEast(gateway.text, /\nca_file = ".*"/, "")),
    log: /circuit is open/,
    verdict: /east at \S+ fails calls.*(TLS|certificate)/,
    alerts: ["SignalrGatewayEndpointDown", "SignalrGatewayHighErrorRatio"],
  },
  {
    name: "endpoint-401",
    title: "401 from the endpoint",
    break: refuse(401),
    log: /refuses the token/,
    verdict: /east at \S+ refuses the gateway's token/,
    alerts: ["SignalrGatewayEndpointRefusesToken"],
  },
  {
    name: "endpoint-403",
    title: "403 from the endpoint",
    break: refuse(403),
    log: /refuses the token/,
    verdict: /east at \S+ refuses the gateway's token/,
    alerts: ["SignalrGatewayEndpointRefusesToken"],
  },
  {
    name: "fan-out-partial",
    title: "fan-out partial",
    hub: "all",
    break: (gateway) => gateway.fault("west", { answer: { status: 500 } }, "/api/hubs"),
    log: /^request$/,
    verdict: /west at \S+ fails calls/,
    alerts: ["SignalrGatewayFanoutPartial"],
  },
  {
    name: "bad-reload",
    title: "bad reload",
    break: (gateway) => gateway.write(`${gateway.text}\n[limits]\nmax_bodyy = 1\n`),
    log: /configuration was rejected/,
    verdict: /configuration was rejected/,
    alerts: ["SignalrGatewayConfigReloadFailed"],
  },
  {
    name: "restart-only",
    title: "restart-only change",
    break: (gateway) => gateway.write(`${gateway.text}\n[process]\nworkers = 3\n`),
    log: /only after a restart/,
    verdict: /restart since .*: process\.workers/,
    // SignalrGatewayRestartPending waits for six hours.
    alerts: [],
  },
  {
    name: "clock-skew",
    title: "clock skew of 20 minutes",
    description: withCertificate(90 * 86_400, 1200),
    early: true,
    break: (gateway) => gateway.started,
    log: /token not refreshed|no valid token/,
    verdict: /clock/,
    alerts: ["SignalrGatewayCredentialPermanentFailure"],
  },
  {
    name: "full-disk",
    title: "full disk under the log",
    wrap: onSmallDisk,
    break: async (gateway) => {
      const filler = onDisk(gateway, "filler");
      try { writeFileSync(filler, Buffer.alloc(2 << 20)); } catch (error) { if (error.code !== "ENOSPC") throw error; }
    },
    // Space is back: a line says what was lost.
    end: async (gateway) => {
      truncateSync(onDisk(gateway, "filler"));
      const log = () => readFileSync(onDisk(gateway, "log"), "utf8");
      await until("the lost lines are reported", () => /log lines were lost/.test(log())).catch(() => {});
      gateway.read(log().split("\n"));
    },
    log: /log lines were lost/,
    verdict: /log lines are lost/,
    alerts: ["SignalrGatewayLogLinesLost"],
  },
  {
    name: "stalled-stderr",
    title: "stalled stderr",
    break: async (gateway) => {
      gateway.process.stderr.pause();
      // The gateway's queue has 4096 lines, and the pipe holds some hundred.
      const send = async () => { for (let call = 0; call < 300; call++) await gateway.send(); };
      await Promise.all(Array.from({ length: 20 }, send));
    },
    end: async (gateway) => {
      gateway.process.stderr.resume();
      await until("the lost lines are reported", () => gateway.lines.some(({ message }) => /log lines were dropped/.test(message))).catch(() => {});
    },
    log: /log lines were dropped/,
    verdict: /log lines are lost/,
    alerts: ["SignalrGatewayLogLinesLost"],
  },
  {
    name: "low-nofile",
    title: "low `nofile` (180)",
    wrap: (command) => ["sh", "-c", 'ulimit -n 180; exec "$0" "$@"', ...command],
    early: true,
    break: async (gateway) => {
      // The gateway closes connections without a request after a while; callers open others.
      const [host, port] = gateway.listener.split(":");
      const open = () => {
        if (gateway.process.exitCode === null && !gateway.process.killed) connect({ host, port }).on("error", () => {}).on("close", open);
      };
      for (let number = 0; number < 60; number++) open();
    },
    log: /limit of open files/,
    verdict: /open files/,
    alerts: ["SignalrGatewayOpenFilesLow", "SignalrGatewayConnectionsAtLimit"],
  },
];
