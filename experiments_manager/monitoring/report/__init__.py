"""One self-contained HTML page about a run, or about all runs below a folder.

The page needs no network and no server: pictures are inside, and its one script only sorts and highlights. `collect`
reads the runs, `page` draws and writes.
"""

from experiments_manager.monitoring.report.page import write_report

__all__ = ["write_report"]
