"""N-gram stage on a million synthetic documents: time, memory, and equality over shard sizes.

Run: ``python -m benchmarks.news_ngrams --documents 1000000``

The peer is scikit-learn's ``TfidfVectorizer`` with the same tokens, on one process.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.bench.memory import peak_gib

SHARDS = (1, 2, 7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--peer", action="store_true", help="also time scikit-learn")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--shard-rows", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        row = {"tenfold": _tenfold, "scikit-learn": _sklearn}[options.child](options)
        print(json.dumps(row))
        return
    from pipelines.news.synthetic import SyntheticConfig, write_market

    with tempfile.TemporaryDirectory() as folder:
        market = SyntheticConfig(documents=options.documents, tickers=500, sessions=750)
        write_market(market, Path(folder))
        runs = [("tenfold", 20_000)]
        runs += [("tenfold", -(-options.documents // shards)) for shards in SHARDS]
        runs += [("scikit-learn", 0)] if options.peer else []
        rows = []
        for name, shard_rows in runs:
            command = [sys.executable, "-m", "benchmarks.news_ngrams", "--child", name]
            command += ["--data", folder, "--shard-rows", str(shard_rows)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(json.loads(out.splitlines()[-1]))
            print(rows[-1], flush=True)
    digests = {row["matrix"] for row in rows if row["name"] == "tenfold"}
    print("matrix identical for every number of shards:", len(digests) == 1)


def _tenfold(options: argparse.Namespace) -> dict:
    from cluster.connect import ClusterConfig, connect
    from cluster.meter import Meter
    from cluster.storage import Store
    from pipelines.news.config import DesignConfig, NewsConfig
    from pipelines.news.prepare import load, prepare
    from pipelines.news.reading.ingest import InputConfig

    data = Path(options.data)
    config = NewsConfig(
        input=InputConfig(news=str(data / "news.parquet"), prices=str(data / "prices.parquet")),
        design=DesignConfig(shard_rows=options.shard_rows, early_drop="off"),
    )
    with tempfile.TemporaryDirectory() as folder, Meter() as meter:
        loaded = load(config, meter)
        with connect(ClusterConfig(dashboard=False)) as cluster:
            problem = prepare(config, loaded, cluster, Store(folder), meter)
        stages = {stage.name: stage for stage in meter.stages}
    X = problem.X
    digest = hashlib.blake2b(digest_size=8)
    for part in (X.indptr, X.indices, X.data):
        digest.update(part.tobytes())
    return {
        "name": "tenfold",
        "shard_rows": options.shard_rows,
        "seconds": round(stages["n-grams"].seconds, 1),
        "cpu_seconds": round(stages["n-grams"].cpu_seconds, 1),
        "design_seconds": round(stages["design"].seconds, 1),
        "largest_worker_gib": round(stages["n-grams"].largest_worker_gib, 2),
        "all_processes_gib": round(meter.peak_gib, 2),
        "rows": X.shape[0],
        "ngrams": problem.columns.design.X.shape[1],
        "nonzeros": int(problem.columns.design.X.nnz),
        "matrix": digest.hexdigest(),
    }


def _sklearn(options: argparse.Namespace) -> dict:
    from sklearn.feature_extraction.text import TfidfVectorizer

    from pipelines.news.design.tokenizer import make_tokenizer

    texts = pq.read_table(Path(options.data) / "news.parquet")["text"].to_pylist()
    started, cpu = time.perf_counter(), time.process_time()
    vectorizer = TfidfVectorizer(
        tokenizer=make_tokenizer("word"),
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, 3),
        min_df=2,
        sublinear_tf=True,
    )
    X = vectorizer.fit_transform(texts).tocsc()
    return {
        "name": "scikit-learn",
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "all_processes_gib": round(peak_gib(), 2),
        "rows": X.shape[0],
        "ngrams": X.shape[1],
        "nonzeros": int(X.nnz),
    }


if __name__ == "__main__":
    main()
