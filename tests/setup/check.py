"""Checks what `signalr-gateway setup` writes: see tests/setup/run."""

import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import hcl2
import tree_sitter
import tree_sitter_bicep

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ["SIGNALR_GATEWAY"]
CHECKOV = os.environ["CHECKOV"]
SHELLCHECK = pathlib.Path(sys.executable).with_name("shellcheck")
CONFIGS = [*sorted(ROOT.glob("config/examples/*.toml")), ROOT / "config/gateway.toml", ROOT / "tests/setup/names.toml"]
GRAMMAR = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bicep.language()))
# The grammar is older than this statement.
EXTENSION = "extension microsoftGraphV1\n"
FUNCTIONS = {"description", "guid", "subscriptionResourceId"}
GITHUB = "https://token.actions.githubusercontent.com"
# The rule judges each subject as one of GitHub Actions, whoever the issuer is.
GITHUB_ONLY = "CKV_AZURE_249"


def fail(message):
    sys.exit(f"failed: {message}")


def setup(config, *options):
    result = subprocess.run([PROGRAM, "setup", "--config", config, *options], capture_output=True, text=True)
    if result.returncode:
        fail(f"setup {config.name} {' '.join(options)}: {result.stderr}")
    return result.stdout


def tenants(config):
    """Returns the tenants that the configuration names, for each of which Bicep is written."""
    file = tomllib.loads(config.read_text())
    tables = [*file.get("credentials", {}).values(), *file.get("endpoints", {}).values()]
    return {table["tenant"] for table in tables if "tenant" in table}


def check_shell(what, text):
    # SC2016 takes a `$` in single quotes for a mistake. Values of a configuration are literal.
    result = subprocess.run([SHELLCHECK, "--shell=sh", "--exclude=SC2016", "-"], input=text, capture_output=True, text=True)
    if result.returncode:
        fail(f"{what}: {result.stdout}{result.stderr}")


def check_distinct(what, names):
    """Bicep and Terraform tell names apart by case; whoever reads them may not."""
    twice = [name for name, count in collections.Counter(name.lower() for name in names).items() if count > 1]
    if twice:
        fail(f"{what}: {twice} is declared twice")
    invalid = [name for name in names if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name.rsplit(".", 1)[-1])]
    if invalid:
        fail(f"{what}: {invalid} is no identifier")


def check_terraform(what, text):
    """Returns the values of its variables for checkov."""
    try:
        file = hcl2.loads(text)
    except Exception as error:
        fail(f"{what}: {error}\n{text}")
    plain = lambda name: name.strip('"')
    declared, references = [], set()
    for kind, prefix in [("data", "data."), ("resource", "")]:
        for block in file.get(kind, []):
            declared += [f"{prefix}{plain(type)}.{plain(name)}" for type, named in block.items() for name in named]
    variables = [plain(name) for block in file.get("variable", []) for name in block]
    declared += [f"var.{name}" for name in variables]
    declared += [f"{plain(name)}.{plain(body['alias'])}" for block in file.get("provider", []) for name, body in block.items()]
    check_distinct(what, declared)
    code = re.sub(r'#.*|"(?:[^"\\]|\\.)*"', "", text)
    references.update(re.findall(r"\bvar\.\w+|\bdata\.\w+\.\w+|(?<![\w.])azure\w+\.\w+", code))
    if unknown := references - set(declared):
        fail(f"{what}: {sorted(unknown)} is not declared")
    return variables


def check_bicep(what, text):
    tree = GRAMMAR.parse(text.replace(EXTENSION, "", 1).encode())
    declared, used = [], set()
    pending = [tree.root_node]
    while pending:
        node = pending.pop()
        if node.is_error or node.is_missing:
            fail(f"{what}: line {node.start_point.row + 1} is not Bicep: {node.text.decode()}")
        if node.type == "identifier":
            name, parent = node.text.decode(), node.parent
            first = parent.named_children[0] == node
            if parent.type in ("resource_declaration", "parameter_declaration") and first:
                declared.append(name)
            elif not (parent.type == "object_property" and first):
                used.add(name)
        pending += node.children
    check_distinct(what, declared)
    if unknown := used - set(declared) - FUNCTIONS:
        fail(f"{what}: {sorted(unknown)} is not declared")


def check_security(folder, github):
    """Runs checkov; `github` are the files whose federated credentials are for GitHub Actions."""
    command = [CHECKOV, "--directory", folder, "--framework", "terraform", "bicep", "--skip-download", "--output", "json"]
    result = subprocess.run(command, capture_output=True, text=True)
    try:
        reports = json.loads(result.stdout)
    except ValueError:
        fail(f"checkov: {result.stdout}{result.stderr}")
    passed = []
    for report in reports if isinstance(reports, list) else [reports]:
        if "results" not in report:
            fail(f"checkov found nothing to check: {report}")
        if errors := report["results"]["parsing_errors"]:
            fail(f"checkov cannot parse {errors}")
        passed += [check["check_id"] for check in report["results"]["passed_checks"]]
        for check in report["results"]["failed_checks"]:
            if check["check_id"] != GITHUB_ONLY or pathlib.Path(check["file_abs_path"]).parent.name in github:
                fail(f"checkov: {check['check_id']} {check['check_name']}: {check['file_path']} {check['resource']}")
    if GITHUB_ONLY not in passed:
        fail("checkov judged no federated credential of GitHub Actions")


def main():
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as work:
        github = set()
        for config in CONFIGS:
            name = config.stem
            check_shell(f"{name}, az", setup(config, "--format", "az"))
            blocks = re.findall(r"```sh\n(.*?)```", setup(config, "--format", "page"), re.DOTALL)
            for block in blocks:
                check_shell(f"{name}, page", block)
            folder = pathlib.Path(work, name)
            folder.mkdir()
            text = setup(config, "--format", "terraform")
            variables = check_terraform(f"{name}, terraform", text)
            (folder / "main.tf").write_text(text)
            values = {key: "repo:contoso/chat:ref:refs/heads/main" if key.startswith("subject_") else "x" for key in variables}
            (folder / "terraform.tfvars.json").write_text(json.dumps(values))
            if GITHUB in text:
                github.add(name)
            for tenant in sorted(tenants(config)) or [None]:
                text = setup(config, "--format", "bicep", *(["--tenant", tenant] if tenant else []))
                check_bicep(f"{name}, bicep", text)
                (folder / f"{tenant}.bicep").write_text(text.replace(EXTENSION, "", 1))
                counts["bicep"] += 1
            counts.update(az=1, page_blocks=len(blocks), terraform=1)
        check_security(work, github)
    print(f"setup: {dict(counts)} parsed; checkov has nothing to say")


main()
