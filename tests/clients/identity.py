"""Tokens by real identity libraries from the sandbox's Entra, each accepted by the sandbox's SignalR endpoint."""

import json
import os
import pathlib
import ssl
import sys
import unittest
import unittest.mock
import urllib.error
import urllib.request

import msal
from azure.identity import (
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    DefaultAzureCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

READY = json.loads(pathlib.Path(os.environ["SANDBOX"]).read_text())
FILES = pathlib.Path(READY["ca"]).parent
TENANT = "bbbbbbbb-0000-4000-8000-00000000000b"
CLIENT = "0a990000-0000-4000-8000-000000000001"
# A managed identity of the endpoint's own tenant, which has a role on it.
IDENTITY = "1de00000-0000-4000-8000-00000000000b"
SCOPE = "https://signalr.azure.com/.default"
OPTIONS = {"authority": READY["entra"], "disable_instance_discovery": True}

# The library's HTTP client reads the CA from here.
os.environ["REQUESTS_CA_BUNDLE"] = READY["ca"]


def secret():
    return (FILES / "client-secret").read_text()


def environment(**variables):
    return unittest.mock.patch.dict(os.environ, {key: str(value) for key, value in variables.items()})


class IdentityTest(unittest.TestCase):
    def accept(self, token):
        """Asserts that the endpoint accepts a token: it says that a user does not exist."""
        target = READY["endpoints"]["east"] + "/api/hubs/chat/users/nobody?api-version=2024-12-01"
        call = urllib.request.Request(target, method="HEAD", headers={"Authorization": f"Bearer {token}"})
        context = ssl.create_default_context(cafile=READY["ca"])
        with self.assertRaises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(call, context=context, timeout=20)
        self.assertEqual(raised.exception.headers.get("x-ms-error-code"), "Warning.User.NotExisted")

    def accept_of(self, credential):
        self.accept(credential.get_token(SCOPE).token)

    def test_client_secret(self):
        self.accept_of(ClientSecretCredential(TENANT, CLIENT, secret(), **OPTIONS))

    def test_certificate(self):
        self.accept_of(CertificateCredential(TENANT, CLIENT, str(FILES / "client.pem"), **OPTIONS))

    def test_client_assertion(self):
        assertion = (FILES / "assertion.jwt").read_text
        self.accept_of(ClientAssertionCredential(TENANT, CLIENT, assertion, **OPTIONS))

    def test_environment(self):
        with environment(AZURE_TENANT_ID=TENANT, AZURE_CLIENT_ID=CLIENT, AZURE_CLIENT_SECRET=secret()):
            self.accept_of(EnvironmentCredential(**OPTIONS))

    def test_workload_identity(self):
        file = str(FILES / "assertion.jwt")
        self.accept_of(
            WorkloadIdentityCredential(tenant_id=TENANT, client_id=CLIENT, token_file_path=file, **OPTIONS)
        )

    def test_managed_identity_by_imds(self):
        with environment(AZURE_POD_IDENTITY_AUTHORITY_HOST=READY["imds"]):
            self.accept_of(ManagedIdentityCredential(client_id=IDENTITY))

    def test_managed_identity_by_app_service(self):
        service = READY["app_service"]
        with environment(IDENTITY_ENDPOINT=service["endpoint"], IDENTITY_HEADER=service["header"]):
            self.accept_of(ManagedIdentityCredential(client_id=IDENTITY))

    def test_default_credential(self):
        with environment(AZURE_TENANT_ID=TENANT, AZURE_CLIENT_ID=CLIENT, AZURE_CLIENT_SECRET=secret()):
            self.accept_of(DefaultAzureCredential(**OPTIONS))

    def test_msal(self):
        authority = f"{READY['entra']}/{TENANT}"
        app = msal.ConfidentialClientApplication(
            CLIENT, authority=authority, client_credential=secret(), instance_discovery=False
        )
        result = app.acquire_token_for_client([SCOPE])
        self.assertIn("access_token", result, result)
        self.accept(result["access_token"])

    def test_device_code_is_refused_for_a_confidential_app(self):
        authority = f"{READY['entra']}/{TENANT}"
        app = msal.PublicClientApplication(CLIENT, authority=authority, instance_discovery=False)
        flow = app.initiate_device_flow([SCOPE])
        self.assertEqual((flow["error"], flow["error_codes"]), ("invalid_client", [70002]))


if __name__ == "__main__":
    sys.exit(not unittest.main(exit=False).result.wasSuccessful())
