"""Living on a cluster: the signals that ask a job to stop."""

from experiments_manager.common.signals import stop_signals

__all__ = ["stop_signals"]
