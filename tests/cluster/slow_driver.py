"""A driver to be killed: maps slow shards on the Ray of RAY_ADDRESS. argv: folder, count."""

import sys

from remote_work import Task, write_rows

from cluster.connect import connect
from cluster.shards import map_shards
from cluster.storage import Store

if __name__ == "__main__":
    tasks = [Task(number, seconds=0.3) for number in range(int(sys.argv[2]))]
    with connect() as cluster:
        map_shards(cluster, write_rows, tasks, Store(sys.argv[1]), fingerprint="slow", label="slow")
