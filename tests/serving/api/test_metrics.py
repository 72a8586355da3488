import threading

import pytest

from experiments_manager.serving.api.metrics import Metrics
from experiments_manager.serving.api.prometheus import page


@pytest.fixture
def parsed():
    parser = pytest.importorskip("prometheus_client.parser")

    def parse(metrics):
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in parser.text_string_to_metric_families(page(metrics))
            for sample in family.samples
        }

    return parse


def test_names_are_those_of_tensorflow_serving():
    metrics = Metrics()
    metrics.observe_request("m", "Predict", "GRPC", "OK", 0.002)
    metrics.observe_load("/models/m/1", "success", 0.5)
    metrics.observe_warm_up("/models/m/1", 0.25)
    text = page(metrics)
    assert ':tensorflow:serving:model_warmup_latency_sum{model_path="/models/m/1",status="OK"} 250000\n' in text
    assert "# TYPE :tensorflow:serving:request_count counter\n" in text
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 1\n' in text
    assert ':tensorflow:cc:saved_model:load_latency{model_path="/models/m/1"} 500000\n' in text
    latency = ':tensorflow:serving:request_latency_sum{model_name="m",API="Predict",entrypoint="GRPC"} 2000\n'
    assert latency in text


def test_a_latency_is_counted_in_its_bucket_and_all_above(parsed):
    metrics = Metrics()
    for seconds in (5e-6, 10e-6, 15e-6, 1e4):
        metrics.observe_runtime("m", "Predict", seconds)
    values = parsed(metrics)
    bucket = ":tensorflow:serving:runtime_latency_bucket"
    counts = {key[1]: value for key, value in values.items() if key[0] == bucket}
    assert (counts["10"], counts["18"], counts["+Inf"]) == (1, 3, 4)
    assert values[(":tensorflow:serving:runtime_latency_count", "Predict", "TF1", "m")] == 4


def test_calls_of_models_are_counted_as_runs_of_graphs_too():
    metrics = Metrics()
    for seconds in (0.0005, 0.003):
        metrics.observe_runtime("m", "Predict", seconds)
    lines = page(metrics).splitlines()
    core = ":tensorflow:core:graph_run"
    assert f"{core}s{{}} 2" in lines
    assert f"{core}_time_usecs{{}} 3500" in lines
    assert f'{core}_time_usecs_histogram_bucket{{le="1000"}} 1' in lines
    assert f'{core}_time_usecs_histogram_bucket{{le="5.24288e+08"}} 2' in lines  # with the real server's digits


def test_only_a_request_that_went_well_has_a_latency():
    metrics = Metrics()
    metrics.observe_request("m", "Predict", "GRPC", "NOT_FOUND", 0.002)
    text = page(metrics)
    assert ':tensorflow:serving:request_count{model_name="m",status="NOT_FOUND"} 1\n' in text
    assert "request_latency" not in text


def test_a_sum_that_has_grown_large_goes_on_growing():
    metrics = Metrics()
    metrics.observe_request("m", "Predict", "GRPC", "OK", 1e6)
    metrics.observe_request("m", "Predict", "GRPC", "OK", 0.0000015)
    assert 'request_latency_sum{model_name="m",API="Predict",entrypoint="GRPC"} 1000000000001.5\n' in page(metrics)


def test_batches_are_counted_with_what_each_request_waited(parsed):
    metrics = Metrics()
    metrics.observe_batch("m", 8, [0.001, 0.002], [3, 2])
    values = parsed(metrics)
    assert values[(":tensorflow:serving:batching_session:processed_batch_size_sum", "m")] == 8
    assert values[(":tensorflow:serving:batching_session:input_batch_size_sum", "m")] == 5
    assert values[(":tensorflow:serving:batching_session:queuing_latency_sum", "m")] == 3000


def test_any_name_is_written_so_that_prometheus_reads_it(parsed):
    metrics = Metrics()
    name = 'a "quoted" \\ name\nof two lines'
    metrics.observe_request(name, "Predict", "REST", "OK", 0.0)
    assert name in {part for key in parsed(metrics) for part in key}


def test_threads_lose_no_count(parsed):
    metrics = Metrics()

    def count():
        for _ in range(1000):
            metrics.observe_request("m", "Predict", "GRPC", "OK", 0.001)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 4000' in page(metrics)


def test_of_very_many_versions_the_latest_are_told():
    metrics = Metrics()
    for number in range(1200):
        metrics.observe_load(f"/models/m/{number}", "success", 1.0)
        metrics.observe_warm_up(f"/models/m/{number}", 1.0)
    text = page(metrics)
    assert [text.count(f'"/models/m/{number}",status="') for number in (199, 200, 1199)] == [0, 37, 37]
    assert text.count("load_latency{") == 1000
