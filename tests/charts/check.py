"""Checks the Helm chart and the Kustomize base: see .ci/charts."""

import copy
import json
import os
import re
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import helm_python
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "config/helm/signalr-gateway"
BASE = ROOT / "config/kubernetes"
RULES = ROOT / "config/prometheus/alerts.yaml"
PROGRAM = os.environ["SIGNALR_GATEWAY"]
# The oldest version that the chart names, and the newest with schemas.
VERSIONS = ["1.27", "1.37"]

# {"alg":"none"}.{"exp":4102444800,"aud":"api://AzureADTokenExchange"}
JWT = "eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDAsImF1ZCI6ImFwaTovL0F6dXJlQURUb2tlbkV4Y2hhbmdlIn0.x"

ENDPOINT = '[endpoints.{0}]\nurl = "https://{0}.service.signalr.net"\ncredential = "fabrikam"\n'

# Values that use every template.
CASES = {
    "default": {},
    "everything": {
        "image": {"repository": "registry.example/gateway", "digest": "sha256:" + "0" * 64, "pullSecrets": ["pull"]},
        "workers": 2,
        "tenants": {"contoso": ENDPOINT.format("contoso"), "north.wind": ENDPOINT.format("northwind")},
        "tenantConfigMaps": [{"name": "more-tenants", "keys": ["adatum.toml"]}],
        "listener": {"tlsSecret": "callers-tls", "allowedHosts": ["gateway.internal"]},
        "admin": {"tlsSecret": "admin-tls", "clientCaSecret": "operators"},
        "extraConfig": {"listener": 'operations = ["messages"]', "limits": 'max_body = "512KiB"', "logging": "access_percent = 10"},
        "resources": {"cpu": {"limit": "2"}, "memory": {"tenants": 1000}},
        "secrets": [{"name": "fabrikam", "secretName": "fabrikam"}],
        "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}],
        "extraEnvFrom": [{"secretRef": {"name": "variables"}}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "redis": {
            "store": "rediss://cache.example:6380/0",
            "username": "gateway",
            "passwordSecret": {"name": "cache", "key": "password"},
            "caSecret": {"name": "cache", "key": "ca.crt"},
            "whenOut": "local",
        },
        "autoscaling": {"enabled": True},
        "monitoring": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        },
        "networkPolicy": {"egress": {"extra": [{"ports": [{"port": 3128, "protocol": "TCP"}]}]}},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "podLabels": {"team": "chat"},
        "podAnnotations": {"note": "x"},
    },
    "webhook": {
        "workloadIdentity": {"webhook": True, "clientId": "11111111-1111-1111-1111-111111111111"},
        "config": '[credentials.fabrikam]\nkind = "workload_identity"\n'
        'tenant = "22222222-2222-2222-2222-222222222222"\nclient_id = "11111111-1111-1111-1111-111111111111"\n' + ENDPOINT.format("east"),
    },
    "least": {
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "monitoring": {"annotations": False},
        "tests": {"doctor": False},
        "limits": {"maxConnections": 100, "maxRequests": 50, "bodyMemoryMiB": 8, "idempotencyKeys": 100},
    },
}

# Values that the schema must reject.
REFUSED = [
    {"replica": 2},
    {"replicas": "two"},
    {"redis": {"store": "cache:6380"}},
    {"secrets": [{"name": "admin-tls", "secretName": "x"}]},
    {"image": {"digest": "latest"}},
    {"tenants": {"a/b": "x"}},
    {"limits": {"maxConnections": 0}},
    {"monitoring": {"prometheusRule": {"enabled": "yes"}}},
]


def fail(message):
    sys.exit(f"failed: {message}")


def render(values, name="signalr-gateway"):
    with helm_python.Chart.load(str(CHART)) as chart:
        texts = chart.render(values, name=name, namespace="default")
    return [one for path, text in texts.items() if not path.endswith(".txt") for one in yaml.safe_load_all(text) if one]


def validate(name, resources):
    for resource in resources:
        if resource["kind"] in ("PodMonitor", "PrometheusRule"):
            # The operator's own; Kubernetes has no schema.
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as err:
                fail(f"{name}: {resource['kind']} {resource['metadata']['name']} for Kubernetes {version}: {err.message} at {list(err.path)}")


def one(resources, kind, name=None):
    found = [each for each in resources if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    if len(found) != 1:
        fail(f"{len(found)} {kind} {name or ''}")
    return found[0]


def certificate(folder):
    """Writes a certificate and its key under the names of Kubernetes."""
    folder.mkdir(parents=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90"]
    command += ["-subj", "/CN=signalr-gateway", "-addext", "subjectAltName=DNS:signalr-gateway"]
    subprocess.run([*command, "-keyout", folder / "tls.key", "-out", folder / "tls.crt"], check=True, capture_output=True)
    (folder / "tls.key").chmod(0o600)
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())


def mounted(folder, resources, pod):
    """Lays the configuration out as the kubelet does, with links to a folder of the current version. Returns the main file."""
    data = folder / "..2026_01_01"
    data.mkdir(parents=True)
    (folder / "..data").symlink_to(data.name)
    volume = next(each for each in pod["volumes"] if each["name"] == "config")
    sources = volume["projected"]["sources"] if "projected" in volume else [volume]
    for source in (each["configMap"] for each in sources):
        maps = [each for each in resources if each["kind"] == "ConfigMap" and each["metadata"]["name"] == source["name"]]
        content = maps[0]["data"] if maps else {"adatum.toml": ENDPOINT.format("adatum")}
        for item in source.get("items") or [{"key": key, "path": key} for key in content]:
            (data / item["path"]).parent.mkdir(exist_ok=True)
            (data / item["path"]).write_text(content[item["key"]])
    for entry in data.iterdir():
        (folder / entry.name).symlink_to(f"..data/{entry.name}")
    return folder / "gateway.toml"


def check_configuration(name, resources, work):
    """Runs `signalr-gateway check` on what a pod would read, and returns its effective settings."""
    pod = one(resources, "Deployment")["spec"]["template"]["spec"]
    secrets = work / name / "secrets"
    mounts = [each["mountPath"] for each in pod["containers"][0]["volumeMounts"]]
    for path in mounts:
        if path.startswith("/run/secrets/"):
            certificate(secrets / path.removeprefix("/run/secrets/"))
            password = secrets / path.removeprefix("/run/secrets/") / "password"
            password.touch(mode=0o600)
            password.write_text("x")
    token = secrets / "azure/tokens/azure-identity-token"
    token.parent.mkdir(parents=True)
    token.touch(mode=0o600)
    # Not expired before 2100; nothing checks its signature.
    token.write_text(JWT)
    file = mounted(work / name / "config", resources, pod)
    text = file.read_text()
    for path in [word for word in text.split('"') if word.startswith("/run/secrets/")]:
        if os.path.dirname(path) not in mounts:
            fail(f"{name}: {path} is not mounted")
    file.write_text(text.replace('"/var/run/secrets/', f'"{secrets}/').replace('"/run/secrets/', f'"{secrets}/'))
    environment = {"PATH": os.environ["PATH"], "AZURE_FEDERATED_TOKEN_FILE": str(token)}
    ended = subprocess.run([PROGRAM, "check", "--config", file], env=environment, capture_output=True, text=True)
    # Who reaches the pod's listeners is for network policies to decide. Any other warning would be one of each start of a pod.
    open_bind = re.compile(r"warning: (listeners\.\w+|admin)\.bind: every host that reaches 0\.0\.0\.0:")
    others = [line for line in ended.stderr.splitlines() if "warning" in line and not open_bind.match(line)]
    if ended.returncode or others:
        fail(f"{name}: check says:\n{ended.stderr}{text}")
    return ended.stdout


def mebibytes(quantity):
    return int(quantity.removesuffix("Mi"))


def check_memory(name, resources, tenants):
    """The limit of the container covers what the limits of the configuration allow: the table of config/guide/sizing.md."""
    container = one(resources, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    maps = [each["data"]["gateway.toml"] for each in resources if each["kind"] == "ConfigMap" and "gateway.toml" in each["data"]]
    settings = tomllib.loads(maps[0])
    body = int(settings["limits"]["body_memory"].removesuffix("MiB"))
    keys = settings.get("idempotency", {}).get("keys", 10000)
    calls = settings["listeners"]["default"]["max_requests"]
    most = 18 + body + (settings["limits"]["max_connections"] * 336 + calls * 304 + keys * 2 + tenants * 15) / 1024
    limit, request = (mebibytes(container["resources"][each]["memory"]) for each in ("limits", "requests"))
    if not most <= limit <= 1.1 * most + 32 or not request <= limit:
        fail(f"{name}: the limits allow {most:.0f} MiB, the container {limit} MiB with a request of {request} MiB")


OWN_LABELS = {"app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}


def comparable(value):
    """Drops what Helm and Kustomize each add: labels, and the hash of the configuration in a name or an annotation."""
    if isinstance(value, dict):
        kept = {key: comparable(each) for key, each in value.items() if key not in OWN_LABELS | {"checksum/config", "namespace"}}
        # Their defaults, which only one of them writes.
        if kept.get("scheme") == "HTTP":
            del kept["scheme"]
        if kept.get("type") == "ClusterIP":
            del kept["type"]
        if kept.get("imagePullPolicy") == "IfNotPresent":
            del kept["imagePullPolicy"]
        return kept
    if isinstance(value, list):
        return [comparable(each) for each in value]
    if isinstance(value, str) and value.startswith("signalr-gateway-") and len(value) == len("signalr-gateway-") + 10:
        return "signalr-gateway"
    return value


def check_same(chart, base):
    for kind in ["ServiceAccount", "Deployment", "PodDisruptionBudget", "Service", "NetworkPolicy"]:
        ours, theirs = (comparable(copy.deepcopy(one(each, kind))) for each in (chart, base))
        if ours != theirs:
            fail(f"{kind}: the chart says\n{json.dumps(ours, indent=1, sort_keys=True)}\nthe base says\n{json.dumps(theirs, indent=1, sort_keys=True)}")
    ours, theirs = (tomllib.loads(one(each, "ConfigMap")["data"]["gateway.toml"]) for each in (chart, base))
    # Defaults that only the chart writes.
    defaults = {"idempotency": {"keys": 10000}, "process": {"workers": 0}}
    theirs = {**defaults, **theirs, "logging": {"filter": "info", "access": "all", **theirs["logging"]}}
    if ours != theirs:
        fail(f"gateway.toml: the chart says\n{ours}\nthe base says\n{theirs}")


def main():
    for values in CASES.values():
        report = helm_python.lint(str(CHART), values, strict=True)
        # An icon is only recommended.
        findings = [each for each in report["messages"] if "icon is recommended" not in each["error"]]
        if findings or report["errors"]:
            fail(f"helm lint: {findings} {report['errors']}")
    for values in REFUSED:
        try:
            render(values)
        except helm_python.HelmError:
            continue
        fail(f"the schema accepts {values}")
    kubectl = pathlib.Path(sys.executable).with_name("kubectl")
    base = subprocess.run([kubectl, "kustomize", BASE], check=True, capture_output=True, text=True).stdout
    base = list(yaml.safe_load_all(base))
    rendered = {name: render(values) for name, values in CASES.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, resources in {"base": base, **rendered}.items():
            validate(name, resources)
            memory = CASES.get(name, {}).get("resources", {}).get("memory", {})
            check_memory(name, resources, memory.get("tenants", 1))
            settings = check_configuration(name, resources, pathlib.Path(folder))
            if name == "everything":
                for endpoint in ["contoso", "northwind", "adatum"]:
                    if f"endpoints.{endpoint}.url" not in settings:
                        fail(f"the endpoint {endpoint} of tenants.d is not in force")
    check_same(rendered["default"], base)
    everything = rendered["everything"]
    one(everything, "HorizontalPodAutoscaler")
    deployment = one(everything, "Deployment")["spec"]
    if "replicas" in deployment:
        fail("a deployment with an autoscaler has replicas")
    if deployment["template"]["spec"]["containers"][0]["livenessProbe"]["httpGet"]["scheme"] != "HTTPS":
        fail("probes of an admin listener with TLS use HTTP")
    monitor = one(everything, "PodMonitor")["spec"]["podMetricsEndpoints"][0]
    if monitor["scheme"] != "https" or monitor["tlsConfig"]["serverName"] != "signalr-gateway":
        fail(f"the pod monitor does not use the admin listener's TLS: {monitor}")
    rule = one(everything, "PrometheusRule")
    if rule["spec"] != yaml.safe_load(RULES.read_text()) or rule["metadata"]["labels"]["release"] != "prometheus":
        fail(f"the rules of the chart are not those of {RULES}")
    if any(each["kind"] == "PrometheusRule" for each in rendered["default"]):
        fail("the chart writes a PrometheusRule, of which not every cluster knows, by default")
    # Other names must not collide with those of another release in the namespace.
    for resource in render(CASES["everything"], name="east"):
        if not resource["metadata"]["name"].startswith("east-"):
            fail(f"{resource['kind']} {resource['metadata']['name']} does not have the name of its release")
    count = sum(len(resources) for resources in rendered.values()) + len(base)
    print(f"{count} manifests of {len(CASES)} sets of values and of the Kustomize base are valid; chart and base say the same")


main()
