"""The files for Compose and Kubernetes, against the schemas that their projects publish."""

import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.serving.server import flags

INSTALL = Path(__file__).resolve().parents[2] / "install"
COMPOSE = sorted(INSTALL.glob("**/compose.yaml"))
KUBERNETES = sorted((INSTALL / "kubernetes").glob("*.yaml"))
VERSIONS = ["1.31", "1.33"]


def objects(kind):
    found = [doc for file in KUBERNETES for doc in yaml.safe_load_all(file.read_text()) if doc["kind"] == kind]
    assert found, kind
    return found


def services():
    return yaml.safe_load((INSTALL / "compose.yaml").read_text())["services"]


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: str(file.relative_to(INSTALL)))
def test_compose_files_follow_the_schema(file):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", KUBERNETES, ids=lambda file: file.name)
def test_manifests_follow_the_schema_of_kubernetes(file, version):
    documents = list(yaml.safe_load_all(file.read_text()))
    assert [kubernetes_validate.validate(document, version, strict=True) for document in documents] == [version] * 2


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["Job", "Deployment"])
def test_the_schema_of_kubernetes_refuses_a_field_that_is_not_known(kind, version):
    (workload,) = objects(kind)
    workload["spec"]["template"]["spec"]["restartpolicy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError, match="'restartpolicy' was unexpected"):
        kubernetes_validate.validate(workload, version, strict=True)


def test_what_is_mounted_is_the_working_folder_of_the_images():
    mounted = {
        mount["mountPath"]
        for kind in ("Job", "Deployment")
        for workload in objects(kind)
        for mount in workload["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        if mount["name"] == "experiments"
    }
    mounted |= {services()[name]["volumes"][0].split(":")[1] for name in ("train", "serve", "tensorboard")}
    folders = re.findall(r"^WORKDIR (\S+)$", (INSTALL / "Dockerfile").read_text(), re.MULTILINE)
    assert mounted == set(folders) == {"/data"}
    assert "mkdir -p /data\n" in (INSTALL / "image" / "post.sh").read_text()


def test_compose_starts_all_four_services_each_with_a_health_check():
    assert set(services()) == {"train", "serve", "tensorboard", "kafka"}
    assert all(service["healthcheck"]["test"] for service in services().values())


def test_a_job_is_started_again_after_an_interruption_and_not_after_a_fault():
    (job,) = objects("Job")
    rules = job["spec"]["podFailurePolicy"]["rules"]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    assert codes == {"Ignore": [int(ExitCode.INTERRUPTED)], "FailJob": [2, 3]}
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert "auto" in job["spec"]["template"]["spec"]["containers"][0]["args"]


def test_what_runs_the_job_keeps_its_runs_on_the_volume():
    (job,) = objects("Job")
    (claim,) = objects("PersistentVolumeClaim")
    pod = job["spec"]["template"]["spec"]
    (volume,) = [volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    assert claim["metadata"]["name"] == "experiments"
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume]
    arguments = pod["containers"][0]["args"]
    assert arguments[arguments.index("--working-dir") + 1].startswith(mount["mountPath"])


def test_servers_are_started_by_flags_that_the_server_knows():
    (deployment,) = objects("Deployment")
    commands = [deployment["spec"]["template"]["spec"]["containers"][0]["args"], services()["serve"]["command"]]
    for program, *given in commands:
        assert program == "experiments-model-server"
        parsed = flags.parse(given)
        assert (parsed.host, parsed.port, parsed.rest_api_port) == ("0.0.0.0", 8500, 8501)


def test_a_served_pod_is_asked_for_its_model_and_tells_prometheus_where_its_metrics_are():
    (deployment,) = objects("Deployment")
    template = deployment["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/path"] == "/monitoring/prometheus/metrics"
    assert template["metadata"]["annotations"]["prometheus.io/port"] == "8501"
    (container,) = template["spec"]["containers"]
    script = container["readinessProbe"]["exec"]["command"][1]
    assert (INSTALL / "image" / Path(script).name).is_file()
