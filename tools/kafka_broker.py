#!/usr/bin/env python3
"""Run one Apache Kafka broker on this machine, for a first try and for tests.

    python3 tools/kafka_broker.py start                    # at 127.0.0.1:9092, data in ./kafka_data
    python3 tools/kafka_broker.py status
    python3 tools/kafka_broker.py stop

It is Kafka itself (4.x, KRaft: broker and controller in one process), and only this machine can reach it. Its jars come
from KAFKA_HOME if that is set; otherwise Maven fetches them once, by the coordinates in install/kafka/pom.xml. It
needs Java 17 or newer and Python's standard library. For a broker that others use, see install/kafka/README.md.
"""

import argparse
import base64
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

HOST = "127.0.0.1"
POM = Path(__file__).resolve().parents[1] / "install/kafka/pom.xml"
STATE, PROPERTIES, LOG, RECORDS = "broker.json", "server.properties", "broker.log", "records"
START_SECONDS = 90
STOP_SECONDS = 60
JAVA = 17
JVM_OPTIONS = [
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",  # half the time to start; a broker for tests does not run long enough for more
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
]
SERVER_PROPERTIES = """# Written by tools/kafka_broker.py at every start.
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{host}:{controller_port}
log.dirs={records}
# One node: nothing can be replicated.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Fewer internal partitions make a quicker start.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
# A misspelt topic is an error, samples stay until someone deletes them, and a record may hold a large picture.
auto.create.topics.enable=false
log.retention.ms=-1
message.max.bytes=67108864
"""


class Problem(Exception):
    """What keeps the broker from being started or stopped, in one sentence or two for the user."""


def parse(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run one Apache Kafka broker on this machine.", allow_abbrev=False)
    parser.add_argument("command", choices=["start", "stop", "status"])
    parser.add_argument("--port", type=port_number, default=9092, help=f"port on {HOST} (default: 9092)")
    parser.add_argument(
        "--data", type=Path, default=Path("kafka_data"), metavar="DIR", help="folder of its data (default: kafka_data)"
    )
    given = parser.parse_args(arguments)
    given.data = given.data.expanduser().resolve()
    return given


def port_number(text):
    """Return a port of the command line as a number."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"invalid port: {text!r}. Expected a whole number from 1 to 65535.")
    return int(text)


def start(data, port):
    """Start the broker of a data folder, and return when it answers requests."""
    state = running(data)
    if state:
        if state["port"] != port:
            raise Problem(
                f"The broker of {data} already runs, at port {state['port']}. Expected port {port}. "
                f"Use that port, or stop it first: {command('stop', data)}"
            )
        return f"Already running: {describe(state)}."
    records = property_value(data / RECORDS)
    check_port(port)
    java = find_java()
    libraries = find_libraries()
    data.mkdir(parents=True, exist_ok=True)
    cluster = cluster_id(data)
    properties = data / PROPERTIES
    properties.write_text(
        SERVER_PROPERTIES.format(host=HOST, port=port, controller_port=free_port(), records=records),
        encoding="ascii",
    )
    jvm = [java, *JVM_OPTIONS, "-cp", f"{libraries}{os.sep}*"]
    if not (data / RECORDS / "meta.properties").exists():
        format_storage(jvm, properties, cluster)
    with (data / LOG).open("ab") as log:
        process = subprocess.Popen(
            [*jvm, "kafka.Kafka", str(properties)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=data,
            start_new_session=True,
        )
    state = {"pid": process.pid, "port": port, "cluster_id": cluster}
    write_state(data, state)
    try:
        wait_for_answer(process, port, data / LOG)
    except BaseException:
        process.kill()
        process.wait()
        (data / STATE).write_text(json.dumps({"cluster_id": cluster}), encoding="utf-8")
        raise
    return f"Started: {describe(state)}, log {data / LOG}."


def property_value(path):
    """Return a path as a file of properties has it: Java takes such files for Latin-1, and Kafka commas for several.

    Raises:
        Problem: Kafka cannot keep its data there.
    """
    if "," in str(path) or not str(path).isprintable():
        raise Problem(f"Kafka cannot keep data in {path}: a name has a comma or is no text. Choose another by --data.")
    units = str(path).replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[place : place + 2], "big") for place in range(0, len(units), 2)]
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)


def stop(data):
    """Stop the broker of a data folder by its process id."""
    state = running(data)
    if not state:
        return f"No broker of {data} is running."
    pid = state["pid"]
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not is_broker(pid, data):
                write_state(data, {"cluster_id": state["cluster_id"]})
                how = "" if number == signal.SIGTERM else f" It did not end within {STOP_SECONDS} s and was killed."
                return f"Stopped the broker at port {state['port']}, process {pid}.{how}"
            time.sleep(0.05)
    raise Problem(f"Process {pid} does not end, not even by SIGKILL. Its log: {data / LOG}.")


def status(data):
    """Return a sentence on the broker of a data folder, and whether it runs."""
    state = running(data)
    if not state:
        return f"No broker of {data} is running. Start it: {command('start', data)}", False
    if not answers(state["port"]):
        return f"Does not answer: {describe(state)}. Its log: {data / LOG}.", False
    return f"Running: {describe(state)}.", True


def describe(state):
    """Return where a broker is found."""
    return f"Kafka at {HOST}:{state['port']}, process {state['pid']}, cluster {state['cluster_id']}"


def command(verb, data):
    """Return the command line for a data folder."""
    return shlex.join(["python3", sys.argv[0], verb, "--data", str(data)])


def read_state(data):
    """Return what is known of the broker of a folder; nothing if none was ever started there."""
    try:
        state = json.loads((data / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Problem(
            f"{data / STATE} cannot be read: {error}. Remove it, or choose another folder by --data."
        ) from error
    return state if isinstance(state, dict) else {}


def write_state(data, state):
    """Replace the file that says which process is the broker."""
    partial = data / f".{STATE}.partial"
    partial.write_text(json.dumps(state), encoding="utf-8")
    partial.replace(data / STATE)


def running(data):
    """Return the state of the broker of a folder if its process is there, else None."""
    state = read_state(data)
    return state if "pid" in state and is_broker(state["pid"], data) else None


def is_broker(pid, data):
    """Return whether a process is the broker of this folder, and not another that got its number."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
        told = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
        words = told.stdout.strip().encode().split(b" ")
    return os.fsencode(data / PROPERTIES) in words


def cluster_id(data):
    """Return the cluster id of a data folder, a new one for an empty folder.

    Raises:
        Problem: The folder holds the data of a broker that this script did not start.
    """
    known = read_state(data).get("cluster_id")
    meta = data / RECORDS / "meta.properties"
    found = meta.exists() and re.search(r"^cluster\.id=(.+)$", meta.read_text(encoding="utf-8"), re.MULTILINE)
    if found and found[1].strip() != known:
        raise Problem(
            f"{data / RECORDS} holds data of another cluster. Expected cluster id {known or 'none yet'}, "
            f"got {found[1].strip()}. Choose another folder by --data, or remove this one."
        )
    if not known:
        known = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "A")
        write_state(data, {"cluster_id": known})
    return known


def check_port(port):
    """Refuse a port that another process listens on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            what = "a Kafka broker answers there" if answers(port) else error.strerror
            raise Problem(f"Port {port} cannot be used: {what}. Choose another by --port.") from error


def free_port():
    """Return a port that nobody uses, for the controller: only this process talks to it."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def find_java():
    """Return the path of a Java that can run Kafka."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(Path(home, "bin/java")) if home else shutil.which("java")
    if java is None:
        where = f"in JAVA_HOME ({home})" if home else "on the path"
        raise Problem(
            f"java not found {where}. Expected Java {JAVA} or newer, which Kafka runs on. "
            "Install it: sudo apt-get install openjdk-17-jre-headless"
        )
    told = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < JAVA:
        raise Problem(
            f"Java is too old. Expected {JAVA} or newer, got {told.splitlines()[0] if told else 'no answer'} ({java}). "
            "Install a newer one and set JAVA_HOME to its folder."
        )
    return java


def find_libraries():
    """Return the folder of Kafka's jars; fetch them by Maven if there is none yet."""
    home = os.environ.get("KAFKA_HOME")
    if home:
        libraries = Path(home, "libs")
        if not list(libraries.glob("kafka_2.1*.jar")):
            raise Problem(
                f"No Kafka in KAFKA_HOME. Expected kafka_2.13-4.*.jar in {libraries}. Correct or unset KAFKA_HOME."
            )
        return libraries
    pom = POM.read_text(encoding="utf-8")
    version = re.search(r"<kafka\.version>(.+?)</", pom)[1]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    libraries = cache / "experiments_manager" / f"kafka-{version}"
    if not libraries.is_dir():
        fetch(libraries, version)
    return libraries


def fetch(libraries, version):
    """Let Maven copy the jars into a folder, which is there whole or not at all."""
    maven = shutil.which("mvn")
    if maven is None:
        raise Problem(
            "Kafka not found, and no mvn on the path to fetch it. Install Maven (sudo apt-get install maven), "
            "or unpack a binary release of Kafka 4 and set KAFKA_HOME to its folder."
        )
    libraries.parent.mkdir(parents=True, exist_ok=True)
    print(
        f"Fetching Apache Kafka {version} by Maven, once, into {libraries} (about 45 MB)", file=sys.stderr, flush=True
    )
    with tempfile.TemporaryDirectory(prefix=f".{libraries.name}.", dir=libraries.parent) as staging:
        jars = Path(staging, "jars")
        told = subprocess.run(
            [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"],
            capture_output=True,
            text=True,
        )
        if told.returncode:
            errors = [line for line in told.stdout.splitlines() if "ERROR" in line][:3]
            raise Problem("Maven could not fetch Kafka: " + " ".join(errors or [f"exit code {told.returncode}"]))
        with contextlib.suppress(OSError):  # another start was quicker
            jars.rename(libraries)


def format_storage(jvm, properties, cluster):
    """Prepare an empty data folder for a cluster id."""
    told = subprocess.run(
        [*jvm, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)],
        capture_output=True,
        text=True,
    )
    if told.returncode:
        lines = (told.stderr + told.stdout).strip().splitlines()
        raise Problem(f"Kafka could not prepare the data folder: {' '.join(lines[-3:])}")


def wait_for_answer(process, port, log):
    """Wait until the broker answers; name its log if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not answers(port):
        if process.poll() is not None:
            with log.open(encoding="utf-8", errors="replace") as lines:
                last = [line.strip() for line in lines if "ERROR" in line or "Exception" in line][-2:]
            raise Problem(
                f"Kafka ended while starting (exit code {process.returncode}). {' '.join(last)} Its log: {log}."
            )
        if time.monotonic() > deadline:
            raise Problem(f"Kafka did not answer within {START_SECONDS} s and was stopped. Its log: {log}.")
        time.sleep(0.05)


def answers(port):
    """Return whether a Kafka broker answers at a port: it gets the request ApiVersions, version 0."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=2) as connection:
        connection.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
        head = connection.recv(10)
        return len(head) == 10 and struct.unpack(">iih", head)[1:] == (1, 0)
    return False


def main(arguments=None):
    """Run the command line, and return its exit code."""
    given = parse(arguments)
    try:
        if given.command == "start":
            print(start(given.data, given.port))
        elif given.command == "stop":
            print(stop(given.data))
        else:
            sentence, running_now = status(given.data)
            print(sentence)
            return 0 if running_now else 1
    except (Problem, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
