// Tokens by Node's @azure/identity from the sandbox's Entra, each accepted by the sandbox's SignalR endpoint. The CA comes
// from NODE_EXTRA_CA_CERTS.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import test from "node:test";

import {
  ClientAssertionCredential,
  ClientCertificateCredential,
  ClientSecretCredential,
  DefaultAzureCredential,
  EnvironmentCredential,
  ManagedIdentityCredential,
  WorkloadIdentityCredential,
} from "@azure/identity";

const ready = JSON.parse(readFileSync(process.env.SANDBOX));
const file = (name) => join(dirname(ready.ca), name);
const text = (name) => readFileSync(file(name), "utf8");
const TENANT = "bbbbbbbb-0000-4000-8000-00000000000b";
const CLIENT = "0a990000-0000-4000-8000-000000000001";
// A managed identity of the endpoint's own tenant, which has a role on it.
const IDENTITY = "1de00000-0000-4000-8000-00000000000b";
const options = { authorityHost: ready.entra, disableInstanceDiscovery: true };
const app = { AZURE_TENANT_ID: TENANT, AZURE_CLIENT_ID: CLIENT, AZURE_CLIENT_SECRET: text("client-secret") };

/** Gets a token while these variables are set, and asserts that the endpoint accepts it: it says that a user does not exist. */
async function accept(variables, credential) {
  Object.assign(process.env, variables);
  try {
    const { token } = await credential().getToken("https://signalr.azure.com/.default");
    const target = `${ready.endpoints.east}/api/hubs/chat/users/nobody?api-version=2024-12-01`;
    const response = await fetch(target, { method: "HEAD", headers: { authorization: `Bearer ${token}` } });
    assert.equal(response.headers.get("x-ms-error-code"), "Warning.User.NotExisted", response.status);
  } finally {
    for (const name of Object.keys(variables)) delete process.env[name];
  }
}

test("client secret", () =>
  accept({}, () => new ClientSecretCredential(TENANT, CLIENT, text("client-secret"), options)));

test("certificate", () =>
  accept({}, () => new ClientCertificateCredential(TENANT, CLIENT, { certificatePath: file("client.pem") }, options)));

test("client assertion", () =>
  accept({}, () => new ClientAssertionCredential(TENANT, CLIENT, async () => text("assertion.jwt"), options)));

test("environment", () => accept(app, () => new EnvironmentCredential(options)));

test("workload identity", () =>
  accept({}, () =>
    new WorkloadIdentityCredential({
      ...options,
      tenantId: TENANT,
      clientId: CLIENT,
      tokenFilePath: file("assertion.jwt"),
    }),
  ));

test("managed identity by IMDS", () =>
  accept({ AZURE_POD_IDENTITY_AUTHORITY_HOST: ready.imds }, () => new ManagedIdentityCredential({ clientId: IDENTITY })));

test("managed identity by App Service", () => {
  const { endpoint, header } = ready.app_service;
  return accept({ IDENTITY_ENDPOINT: endpoint, IDENTITY_HEADER: header }, () =>
    new ManagedIdentityCredential({ clientId: IDENTITY }),
  );
});

test("default credential", () => accept(app, () => new DefaultAzureCredential(options)));
