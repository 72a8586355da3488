"""The table of all settings: name, type, default, group and meaning; other names come from `dialects`.

This file is the one place where a setting is declared. The reference in `docs/settings.md`, the checks, the overrides,
the hints for misspelt names and the attributes of `Settings` all follow from it. Hooks have a table of their own in
`hooks.py`.
"""
# ruff: noqa: E501  (a table reads best with one row a line)

import dataclasses
from typing import Annotated, Any, Literal

import annotated_types
import pydantic

from experiments_manager.dialects import Alias, alias_of_setting
from experiments_manager.settings import types
from experiments_manager.settings.types import (
    Anything,
    Count,
    Dictionary,
    Flag,
    Fraction,
    Indices,
    Integer,
    MessageSize,
    Momentum,
    Names,
    NotNegative,
    PathText,
    Port,
    Positive,
    PositiveCount,
    Samples,
    Steps,
    Text,
)

DEFAULT_EMA_MOMENTUM = 0.99


def setting(default: Any, group: str, doc: str) -> Any:
    """Return one row of the table below."""
    return pydantic.Field(default=default, description=doc, json_schema_extra={"group": group})


class Values(pydantic.BaseModel):
    """The values of all settings, checked by type. The rows read: name, type, default, group, meaning."""

    model_config = pydantic.ConfigDict(
        strict=True, allow_inf_nan=False, extra="forbid", protected_namespaces=(), defer_build=True
    )

    # fmt: off
    session_name: Text | None = setting(None, "Experiment", "Begins the name of the run folder. By default the file's name without `mysettings_`.")
    working_dir: PathText = setting("experiments", "Experiment", "Folder that run folders are made in.")
    random_seed: Integer = setting(42, "Experiment", "Fixes Python, NumPy, TensorFlow and Keras.")
    hparams: Dictionary = setting({}, "Experiment", "What one may vary: named in the run folder, in sweeps and in comparisons.")
    hparams_ext: Dictionary = setting({}, "Experiment", "Further hyperparameters that the name of the run folder leaves out.")
    cid: Text | int = setting("", "Experiment", "Identity of a simulated client; `hparams['cid']` where that is given.")
    debug: Flag = setting(False, "Experiment", "Say more, and show Python's tracebacks.")
    model_file: PathText | None = setting(None, "Experiment", "File that defines `model`, looked for from the working directory, then beside the settings file.")

    batch_size: PositiveCount = setting(32, "Data", "Samples a step.")
    train_data_dir: Anything = setting(None, "Data", "Where the training data is: a path, or whatever `dataset` reads it from.")
    validation_data_dir: Anything = setting(None, "Data", "Where the validation data is.")
    test_data_dir: Anything = setting(None, "Data", "Where the test data is.")
    data_extension: Text | Names | None = setting(None, "Data", "Ending or pattern of the data files' names.")
    steps_per_epoch: Steps = setting(None, "Data", "Training steps an epoch. `None` or 0: until the data ends.")
    validation_steps: Steps = setting(None, "Data", "Steps of a validation. `None` or 0: until the data ends.")
    train_size: Samples | None = setting(None, "Data", "Samples in the training data; gives the steps of an epoch only where nothing else tells them.")
    validation_size: Samples | None = setting(None, "Data", "Samples in the validation data, used in the same way.")
    shuffle: Flag = setting(True, "Data", "Shuffle training arrays in an order that follows from the seed and the epoch.")
    class_names: Names | None = setting(None, "Data", "Names of the classes or labels, in their order.")
    rebuild_dataset: Flag = setting(True, "Data", "Call `dataset` again for each pass through a shuffled or random `tf.data` pipeline, so that a resume is exact. `False` where building is dear.")
    allow_nan: Flag = setting(False, "Data", "Take arrays that hold NaN, for losses that mask them.")

    epochs: PositiveCount = setting(100, "Training", "Epochs that a run takes at most.")
    monitor: Text = setting("val_loss", "Training", "The watched value: decides on the best epoch, early stopping and exports.")
    monitor_mode: Literal["auto", "min", "max"] = setting("auto", "Training", "Whether the watched value should fall or rise; `auto` tells by its name.")
    monitored_metric: Anything = setting(None, "Training", "Names of metrics that the user's own code may watch.")
    early_stopping_patience: Count | None = setting(10, "Training", "Epochs without improvement before training stops. `None`: never.")
    early_stopping_min_delta: NotNegative = setting(0.0, "Training", "Smallest change that counts as an improvement.")
    reduce_lr_patience: Count | None = setting(None, "Training", "Epochs without improvement before the learning rate is reduced. `None`: never.")
    reduce_lr_factor: Fraction = setting(0.5, "Training", "What the learning rate is multiplied by then.")
    reduce_lr_min_delta: NotNegative | None = setting(None, "Training", "Smallest change that counts as an improvement for that. `None`: as `early_stopping_min_delta`.")
    min_learning_rate: NotNegative = setting(0.0, "Training", "Lower bound of such reductions.")
    gradient_clip_norm: Positive | None = setting(None, "Training", "Scale the gradient so that its norm over all weights is this at most.")
    gradient_clip_value: Positive | None = setting(None, "Training", "Clip each element of the gradient to plus or minus this.")
    gradient_accumulation_steps: PositiveCount | None = setting(None, "Training", "Steps whose gradients are averaged for one update.")
    ema_momentum: Momentum | None = setting(DEFAULT_EMA_MOMENTUM, "Training", "Momentum of the moving average of the weights, which is what is validated and exported. `None`: off.")
    on_nan: Literal["stop", "reload"] = setting("stop", "Training", "When loss or weights stop being finite: stop, or go on from the last good state.")

    jit_compile: Flag | Literal["auto"] = setting("auto", "Devices", "Compile training by XLA: the whole loop over arrays in memory, else each step. `auto`: the loop of small nets with many steps ahead, where that repays the seconds of compiling.")
    mixed_precision: Literal["float16", "bfloat16"] | None = setting(None, "Devices", "Type that layers compute in; the weights stay in float32.")
    gpus: Indices | None = setting(None, "Devices", "Indices of the GPUs to use. `None`: all that SLURM gave to the job, elsewhere the first one visible, or the CPU; `[]`: the CPU.")
    strategy: Literal["MirroredStrategy", "MultiWorkerMirroredStrategy"] | None = setting(None, "Devices", "How several GPUs of a host (`MirroredStrategy`), or several processes (`MultiWorkerMirroredStrategy`, docs/clusters.md), share the work; means nothing with fewer than two.")
    deterministic: Flag = setting(False, "Devices", "Allow only operations that give the same bits each time, also on a GPU.")
    cluster: Dictionary = setting({}, "Devices", "What jobs of this experiment ask of a cluster, e.g. `{'time': '4:00:00', 'gpus': 1, 'mem': '16G'}`; all keys are in docs/clusters.md.")

    checkpoint_every_steps: PositiveCount | None = setting(None, "Checkpoints", "Write a checkpoint after this many steps.")
    checkpoint_every_minutes: Positive | None = setting(10.0, "Checkpoints", "Write a checkpoint when the last one is this old.")
    keep_checkpoints: PositiveCount = setting(2, "Checkpoints", "Checkpoints that are kept.")

    export: Flag = setting(True, "Export", "Export the best weights as a servable model.")
    keep_versions: Count = setting(3, "Export", "Exported versions that are kept. 0: all.")
    input_names: Names | None = setting(None, "Export", "Names of the served model's inputs. `None`: the model's own.")
    output_names: Names | None = setting(None, "Export", "Names of the served model's outputs. `None`: the model's own.")

    tensorboard: Flag = setting(True, "Monitoring", "Write logs for TensorBoard.")
    log_every_steps: PositiveCount | None = setting(None, "Monitoring", "Write scalars for TensorBoard after this many steps too. `None`: by epoch alone.")
    histogram_every: PositiveCount | None = setting(None, "Monitoring", "Epochs from one histogram of the weights to the next. `None`: none.")
    embeddings: Names | None = setting(None, "Monitoring", "Layers whose outputs TensorBoard's Projector shows. `None`: the model's outputs, and what the layer before the last gives; `[]`: none.")
    embeddings_every: PositiveCount | None = setting(None, "Monitoring", "Epochs from one set of embeddings to the next. `None`: the best weights' alone, at the end.")
    embeddings_samples: PositiveCount = setting(5000, "Monitoring", "Samples that are embedded at most.")
    images_every: PositiveCount | None = setting(None, "Monitoring", "Epochs from one set of pictures (confusion matrix, predictions) in TensorBoard to the next. `None`: the best weights' alone, at the end.")
    figures: Flag = setting(True, "Monitoring", "Draw curves, confusion matrix or residuals, and predictions into `figures/` when the run is finished.")
    mlflow: Flag = setting(False, "Monitoring", "Log parameters, metrics, artefacts and model to MLflow too (extra `mlflow`).")
    profile: Flag = setting(False, "Monitoring", "Record a profile of some steps for TensorBoard.")

    server_host: Text = setting("localhost", "Serving", "Host of the model server.")
    grpc_port: Port = setting(9000, "Serving", "Its port for gRPC.")
    rest_port: Port = setting(8501, "Serving", "Its port for REST.")
    request_timeout: Positive = setting(10.0, "Serving", "Seconds that a client waits for an answer.")
    wait_for_server: NotNegative = setting(60.0, "Serving", "Seconds that a client waits for the server to be ready.")
    max_message_bytes: MessageSize = setting(536870912, "Serving", "Largest message between client and server, in bytes.")
    max_in_flight: Count = setting(0, "Serving", "Requests that the model server answers at once; it turns further ones away. 0: any number.")
    max_bytes_in_flight: MessageSize = setting(2147483647, "Serving", "Bytes of requests that the model server reads or answers at once; it turns further ones away.")
    max_connections: PositiveCount = setting(10000, "Serving", "Connections to the model server by REST at once, and as many by gRPC.")
    header_timeout_seconds: NotNegative = setting(10.0, "Serving", "Seconds in which the headers of a request must come. 0: any time.")
    body_timeout_seconds: NotNegative = setting(30.0, "Serving", "Seconds for which a body may come, or leave, at less than 16 KiB a second. 0: any time.")
    idle_timeout_seconds: NotNegative = setting(60.0, "Serving", "Seconds from one request of a connection to the next. 0: any time.")
    client_async: Flag = setting(False, "Serving", "Send requests without waiting for the answer to the one before.")
    serve_on_gpu: Flag = setting(False, "Serving", "Let the model server use a GPU.")

    consume_data_from_kafka: Flag = setting(False, "Kafka", "Train on the samples of Kafka topics instead of those that `dataset` returns.")
    kafka_bootstrap_servers: Names = setting(["localhost:9092"], "Kafka", "Addresses (`host:port`) of one Kafka broker or more.")
    kafka_topics: Dictionary = setting({}, "Kafka", "Topic of each split, e.g. `{'train': 'clicks', 'validation': None}`. A split that is missing here has the topic `<session_name>.<split>`; one with `None` comes from `dataset`.")
    kafka_mode: Literal["bounded", "live"] = setting("bounded", "Kafka", "With `bounded`, train on what the topic holds when the run starts, again in each epoch; with `live`, follow it as it grows; an epoch is `steps_per_epoch` batches.")
    kafka_start: Anything = setting("earliest", "Kafka", "Where a run begins to read the training topic: `'earliest'`, `'latest'`, or a time (`'2026-11-22 14:00'`, a `datetime`, or seconds since 1970).")
    kafka_idle_timeout: Positive | None = setting(None, "Kafka", "Seconds without a new sample after which a live run ends normally. `None`: never.")
    kafka_partition_wait: NotNegative | None = setting(1.0, "Kafka", "Seconds for which a partition without new records holds up the others in a live run; then the order depends on arrival, too. `None`: for ever.")
    kafka_cache: Count = setting(2**30, "Kafka", "Bytes up to which a bounded topic is read into memory once and trained on like arrays. 0: never.")
    kafka_shuffle_buffer: PositiveCount = setting(16384, "Kafka", "Samples among which a bounded topic that is not in memory is shuffled.")
    kafka_format: Literal["native", "example", "json", "avro"] = setting("native", "Kafka", "What the records are: written by `kafka produce`, `tf.train.Example`, JSON, or Avro.")
    kafka_fields: Dictionary = setting({}, "Kafka", "Fields of JSON, Avro or Example records that make up `x`, `y` and `sample_weight`, e.g. `{'x': ['age', 'height'], 'y': 'label'}`. By default the fields of these names.")
    kafka_schema_registry: Text | None = setting(None, "Kafka", "URL of the schema registry of Avro records.")
    kafka_max_bad: Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)] = setting(0.001, "Kafka", "Share of records that cannot be decoded above which a run stops; others go to `<topic>.dead`.")
    kafka_group: Text | None = setting(None, "Kafka", "Consumer group of live runs that share the partitions of a topic. `None`: a run has all of them.")
    kafka_options: Dictionary = setting({}, "Kafka", "Further options of librdkafka, e.g. `{'sasl.password': '${KAFKA_PASSWORD}'}`; `${NAME}` is a variable of the environment.")
    prequential: Flag = setting(False, "Kafka", "Test each batch with the weights from before its own step, and log loss and metrics of that as `prequential_…`.")

    federated: Dictionary = setting({}, "Federation and quantisation", "How a federation trains, e.g. `{'strategy': 'FedAvg', 'rounds': 20, 'local_epochs': 1}`; all keys are in docs/federated.md.")
    federated_local_layers: Names = setting([], "Federation and quantisation", "Layers that stay at the clients of a federation, each with its own weights; names, or patterns such as `head*`.")
    enable_federated_learning: Flag = setting(False, "Federation and quantisation", "Train as a client of a federation.")
    federated_learning_server_address: Text = setting("localhost:8080", "Federation and quantisation", "Address of the federation's server.")
    quantization_aware_training: Flag = setting(False, "Federation and quantisation", "Train with simulated quantisation.")
    # fmt: on


@dataclasses.dataclass(frozen=True)
class SettingSpec:
    """One setting, read from the table.

    Attributes:
        name: The canonical name.
        annotation: Its type, with bounds.
        default: Its value where the file does not give it.
        doc: One line of meaning.
        group: The heading that it stands under in the reference.
        alias: Its other name, where a plug-in has one.
    """

    name: str
    annotation: Any
    default: Any
    doc: str
    group: str
    alias: Alias | None

    @property
    def other_name(self) -> str | None:
        """Its other name, where a plug-in has one."""
        return self.alias.name if self.alias else None

    @property
    def type_text(self) -> str:
        """The type of the setting, as the documentation writes it."""
        return types.describe(self.annotation)


def _read_table() -> dict[str, SettingSpec]:
    entries = {}
    for name, field in Values.model_fields.items():
        # `field.annotation` lacks the bounds, which pydantic keeps apart; the class still has the type as it was written.
        annotation = Values.__annotations__[name]
        group, alias = field.json_schema_extra["group"], alias_of_setting(name)
        entries[name] = SettingSpec(name, annotation, field.default, field.description, group, alias)
    return entries


SETTINGS: dict[str, SettingSpec] = _read_table()
"""All settings by canonical name, in the order of the table."""

BY_OTHER_NAME: dict[str, SettingSpec] = {entry.other_name: entry for entry in SETTINGS.values() if entry.other_name}
"""The settings that have another name, by that name."""

BY_ANY_NAME: dict[str, SettingSpec] = SETTINGS | BY_OTHER_NAME
"""All settings by canonical and by other name."""
