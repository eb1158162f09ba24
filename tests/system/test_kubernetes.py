"""The manifests: valid for the newest Kubernetes, and right about the programs they run."""

import os
import shutil
import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlpserve.v1 import prediction_pb2
from mlpserve_model.process.arguments import variable_of
from mlpserve_model.process.choices import is_served
from mlpserve_server.settings import Settings, read_settings
from mlpserve_web.settings import read_settings as read_web_settings
from mlpserve_web.settings import settings_parser as web_settings_parser

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
BASE = [path for path in sorted(FOLDER.glob("base/**/*.yaml")) if path.stem != "kustomization"]
NEWEST, VERSIONS = -1, (-3, -2, -1)  # of Kubernetes, among those that the validator knows
# The same as the safe one, several times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
READINESS = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
# What the client in the server's container, asking for its health, reads beside them.
CLIENT_VARIABLES = {"MLPSERVE_TLS_CA", "MLPSERVE_TLS_SERVER_NAME"}


@cache
def rendered(overlay: str) -> str:
    """Everything that `kubectl apply -k` would send, as YAML."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl renders the overlays; without it only the single files are checked")
    command = ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(overlay: str) -> list[Any]:
    """The manifests of an overlay, which the test may change."""
    return list(yaml.load_all(rendered(overlay), Loader=LOADER))


def only(manifests: list[Any], kind: str, name: str = "") -> Any:
    """The one manifest of a kind, or of a kind and a name."""
    (found,) = [
        each
        for each in manifests
        if each["kind"] == kind and name in ("", each["metadata"]["name"])
    ]
    return found


def pods(manifests: list[Any]) -> dict[str, Any]:
    """The pod templates of server, trainer and web, and of the trainers of further models."""
    trainers = {
        each["metadata"]["name"].removeprefix("mlpserve-"): each["spec"]["jobTemplate"]["spec"]
        for each in manifests
        if each["kind"] == "CronJob"
    }
    return {
        "server": only(manifests, "Deployment", "mlpserve-server")["spec"]["template"],
        **{name: job["template"] for name, job in trainers.items()},
        "web": only(manifests, "Deployment", "mlpserve-web")["spec"]["template"],
    }


def container(manifests: list[Any], which: str) -> Any:
    (found,) = pods(manifests)[which]["spec"]["containers"]
    return found


def environment(manifests: list[Any], which: str) -> dict[str, str]:
    (source,) = container(manifests, which)["envFrom"]
    values: dict[str, str] = only(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    return values


def validate(manifest: Any, version: int) -> str:
    """Check a manifest against a version of Kubernetes; return the version's name."""
    import kubernetes_validate  # makes parsers of a grammar, for seconds: where it is needed alone

    name: str = kubernetes_validate.utils.all_versions()[version]
    kubernetes_validate.validate(manifest, name, strict=True)
    return name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", BASE, ids=lambda path: path.stem)
def test_a_file_of_the_base_is_valid(path: Path, version: int) -> None:
    for manifest in yaml.safe_load_all(path.read_text()):
        validate(manifest, version)


def test_the_validator_refuses_what_kubernetes_does_not_know() -> None:
    server = list(yaml.safe_load_all((FOLDER / "base/server.yaml").read_text()))[-1]
    server["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(Exception, match="livenesProbe"):
        validate(server, NEWEST)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("kustomization.yaml")), ids=str)
def test_a_kustomization_names_files_that_exist_and_leaves_none_out(path: Path) -> None:
    told = yaml.safe_load(path.read_text())
    generated = [name for each in told.get("configMapGenerator", []) for name in each["envs"]]
    patches = [each["path"] for each in told.get("patches", []) if "path" in each]
    local = {name for name in told["resources"] if (path.parent / name).is_file()}
    folders = set(told["resources"]) - local
    assert all((path.parent / name / path.name).is_file() for name in folders)
    named = {*local, *generated, *patches, path.name}
    assert named == {each.name for each in path.parent.iterdir() if each.is_file()}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_renders_to_valid_manifests(overlay: str, version: int) -> None:
    manifests = render(overlay)
    names = {validate(manifest, version) for manifest in manifests}
    print(f"{overlay}: {len(manifests)} manifests valid for Kubernetes {names}")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_readiness_and_liveness_ask_different_questions(overlay: str) -> None:
    server = container(render(overlay), "server")
    asked = {name: server[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    if overlay == "production":  # encrypted, which the kubelet's own probes cannot do
        asked = {name: probe["exec"]["command"] for name, probe in asked.items()}
        live = ["mlpserve-client", "health", "--live"]
        assert asked == {"startup": live, "liveness": live, "readiness": live[:2]}
    else:
        services = {name: probe["grpc"]["service"] for name, probe in asked.items()}
        # A pod without a model must not be restarted for it: starting is judged by liveness.
        assert services == {"startup": "", "liveness": "", "readiness": READINESS}
        assert {probe["grpc"]["port"] for probe in asked.values()} == {50051}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_accepts_its_settings_and_ends_within_its_grace(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = render(overlay)
    variables = environment(manifests, "server")
    known = {f"MLPSERVE_{field.name.upper()}" for field in fields(Settings)}
    assert set(variables) <= known | CLIENT_VARIABLES
    for name in [name for name in os.environ if name.startswith("MLPSERVE_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    settings = read_settings(["--listen", "0.0.0.0:50051"])  # as the image does

    assert settings.allow_plaintext == (overlay != "production")
    assert (settings.tls_client_ca is not None) == (overlay == "production")
    grace = pods(manifests)["server"]["spec"]["terminationGracePeriodSeconds"]
    assert settings.drain_seconds + settings.grace_seconds + 5 <= grace


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("overlay", "which", "model"),
    [
        ("local", "trainer", "mnist"),
        ("production", "trainer", "mnist"),
        ("several-models", "trainer-digits", "digits"),
    ],
)
def test_the_trainer_accepts_its_command(
    overlay: str, which: str, model: str, tmp_path: Path
) -> None:
    manifests = render(overlay)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLPSERVE_")}
    program = str(Path(sys.executable).with_name("mlpserve-trainer"))
    command = [program, *container(manifests, which)["args"], "--dataset", "digits"]
    command += ["--epochs", "1", "--hidden", "16", "--store", str(tmp_path / "models")]
    variables = environment(manifests, which) | {"MLPSERVE_CACHE_DIR": str(tmp_path / "cache")}

    done = subprocess.run(command, env=inherited | variables, text=True, capture_output=True)

    assert done.returncode in (0, 3), done.stderr  # 3: one epoch is not enough for the gate
    assert (tmp_path / "models" / model / "1/manifest.json").exists()


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("which", ["server", "trainer", "web"])
def test_pods_are_as_the_restricted_profile_wants_and_more(overlay: str, which: str) -> None:
    manifests = render(overlay)
    pod, program = pods(manifests)[which]["spec"], container(manifests, which)

    labels = only(manifests, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert program["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    # A service's variables would begin with MLPSERVE_, as settings do.
    assert pod["enableServiceLinks"] is False
    assert program["resources"]["limits"]["memory"]
    models = [mount for mount in program["volumeMounts"] if mount["mountPath"] == "/models"]
    assert [mount.get("readOnly", False) for mount in models] == ["trainer" not in which]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_page_accepts_its_settings_and_finds_and_may_reach_the_servers(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = render(overlay)
    variables = environment(manifests, "web")
    known = {variable_of(action) for action in web_settings_parser()._actions}
    assert set(variables) <= known
    for name in [name for name in os.environ if name.startswith("MLPSERVE_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    settings = read_web_settings(["--listen", "0.0.0.0:8080"])  # as the image does

    service = only(manifests, "Service", "mlpserve")
    found = "{name}.{namespace}.svc".format(**service["metadata"])
    assert settings.target == f"{found}:{service['spec']['ports'][0]['port']}"
    assert settings.target_tls_server_name == (found if overlay == "production" else None)
    grace = pods(manifests)["web"]["spec"]["terminationGracePeriodSeconds"]
    assert settings.grace_seconds + 5 <= grace
    labels = pods(manifests)["web"]["metadata"]["labels"]
    for policy, direction in (("callers-to-server", "ingress"), ("callers-to-web", "egress")):
        allowed = only(manifests, "NetworkPolicy", policy)["spec"][direction][0]
        (peer,) = allowed["from" if direction == "ingress" else "to"]
        reached = labels if direction == "ingress" else service["spec"]["selector"]
        assert peer["podSelector"]["matchLabels"].items() <= reached.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_selects_the_server_selects_its_pods_and_no_others(overlay: str) -> None:
    manifests = render(overlay)
    labels = {which: pod["metadata"]["labels"] for which, pod in pods(manifests).items()}
    service = only(manifests, "Service", "mlpserve")["spec"]
    selectors = [
        only(manifests, "Deployment", "mlpserve-server")["spec"]["selector"]["matchLabels"],
        service["selector"],
        only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(manifests, "NetworkPolicy", "callers-to-server")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels["server"].items()
        others = [label for which, label in labels.items() if which != "server"]
        assert not any(selector.items() <= label.items() for label in others)
    assert service["clusterIP"] == "None"
    scaled = only(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert scaled["name"] == only(manifests, "Deployment", "mlpserve-server")["metadata"]["name"]
    trainings = [each["spec"] for each in manifests if each["kind"] == "CronJob"]
    assert {training["concurrencyPolicy"] for training in trainings} == {"Forbid"}


def test_the_store_can_be_mounted_by_all_nodes() -> None:
    claim = only(render("production"), "PersistentVolumeClaim", "mlpserve-models")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_a_further_model_is_trained_and_served_beside_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifests = render("several-models")
    trainers = [name for name in pods(manifests) if "trainer" in name]
    trained = [environment(manifests, name)["MLPSERVE_MODEL"] for name in trainers]
    assert trained == ["mnist", "digits"]
    for name, value in environment(manifests, "server").items():
        monkeypatch.setenv(name, value)
    settings = read_settings([])
    assert all(is_served(model, settings.model) for model in trained)
    assert settings.default_model == "mnist"
    # The volume of the cache is mounted by one node at a time.
    schedules = [each["spec"]["schedule"] for each in manifests if each["kind"] == "CronJob"]
    assert len(set(schedules)) == 2
