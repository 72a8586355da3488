"""Brokers that a test configures itself, by a whole `server.properties`."""

import contextlib
import importlib.util
import subprocess
import time

from tests.helpers.kafka_brokers import TOOL

CLUSTER = "Zkp3b2R4dGFyYnJva2Vycw"


def load_tool():
    """Gives tools/kafka_broker.py as a module."""
    spec = importlib.util.spec_from_file_location("kafka_broker_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def read_properties(text):
    """Gives the lines `name=value` of a properties file."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def run_kafka(program, *arguments):
    """Runs one of Kafka's own programs, as the scripts in its `bin` do."""
    tool = load_tool()
    command = [tool.find_java(), *tool.JVM_OPTIONS, "-cp", f"{tool.find_libraries()}/*", program]
    told = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


@contextlib.contextmanager
def running_brokers(folder, *properties, answering):
    """Runs one broker for each dictionary of properties until the block ends; returns when all answer.

    `answering` are the ports, one a broker, that speak Kafka without TLS.
    """
    tool, processes = load_tool(), []
    jvm = [tool.find_java(), *tool.JVM_OPTIONS, "-cp", f"{tool.find_libraries()}/*"]
    try:
        for number, of_one in enumerate(properties):
            file = folder / f"server{number}.properties"
            of_one = of_one | {"log.dirs": str(folder / f"records{number}")}
            file.write_text("".join(f"{name}={value}\n" for name, value in of_one.items()))
            tool.format_storage(jvm, file, CLUSTER)
            with (folder / f"broker{number}.log").open("wb") as log:
                command = [*jvm, "kafka.Kafka", str(file)]
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder))
        deadline = time.monotonic() + 120
        for number, port in enumerate(answering):
            while not tool.answers(port):
                log = folder / f"broker{number}.log"
                assert processes[number].poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.1)
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
