"""A driver of its own: maps slow shards on the Ray of RAY_ADDRESS.

argv: folder, count, and the file that the shard whose machine stops leaves, if one shall.
"""

import sys
from pathlib import Path

from remote_work import Task, write_rows

from cluster.connect import connect
from cluster.shards import map_shards
from cluster.storage import Store

if __name__ == "__main__":
    tasks = [Task(number, seconds=0.3) for number in range(int(sys.argv[2]))]
    if sys.argv[3:]:
        tasks[3] = Task(3, Path(sys.argv[3]), "machine stopped")
    with connect() as cluster:
        map_shards(cluster, write_rows, tasks, Store(sys.argv[1]), fingerprint="slow", label="slow")
