"""Whether the processes of a training read the same data, of which each then takes its rows."""

from __future__ import annotations

from experiments_manager.runs import Run
from experiments_manager.settings import Settings
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.feed import BY_CHANCE, Feed
from experiments_manager.training.feeds.fingerprint import checksum
from experiments_manager.training.feeds.topics.topic_setup import keep_ranges
from experiments_manager.training.hosts.membership import require_same
from experiments_manager.training.hosts.team import Team


def agree_on_topics(team: Team, settings: Settings, run: Run) -> None:
    """Let all processes read the ranges of topics that the chief's run keeps; topics may grow at any time.

    Args:
        team: The processes, all of which call this.
        settings: The experiment.
        run: Of this process.

    Raises:
        DataError: A topic is to be followed.
        TopicError: A topic cannot be read.
    """
    if team.size == 1 or not settings.consume_data_from_kafka:
        return
    if settings.kafka_mode == "live":
        raise DataError(
            "kafka_mode: a live topic cannot be read by several processes of one training, since each of them would "
            "have to see the same records at the same step. Expected 'bounded', got 'live'. Train on the topic by one "
            "process, or set kafka_mode = 'bounded'."
        )
    if team.is_chief:
        keep_ranges(settings, run)
    kept = team.chiefs(run.manifest.get("kafka"))
    if not team.is_chief:
        run.update(kafka={split: {**of_split, "of_chief": True} for split, of_split in (kept or {}).items()})


def require_same_data(team: Team, train: Feed, validation: Feed | None) -> str | None:
    """Compare what the processes are about to train on.

    Args:
        team: The processes, all of which call this.
        train: The training data.
        validation: The validation data, if any.

    Returns:
        What there is to say of data that cannot be compared, if anything.

    Raises:
        TrainingError: It is not the same in all of them.
    """
    if team.size == 1:
        return None
    feeds = [feed for feed in (train, validation) if feed is not None]
    require_same(team, "numbers of batches in an epoch (train, validation)", [feed.steps for feed in feeds])
    exact = [feed for feed in feeds if feed.kind not in BY_CHANCE]
    require_same(team, "data (checksums of the first batches)", [checksum(feed.sample_batch()) for feed in exact])
    if len(exact) == len(feeds):
        return None
    return (
        "The data is not reproducible, so each process takes its rows of other batches: some samples count twice in an "
        "epoch, and others not at all."
    )
