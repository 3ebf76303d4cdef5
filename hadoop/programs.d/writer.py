"""A writer of tables, in a process of its own: lake_tables.py starts several of them at a time, and opens the gate for them."""

import json
import os
import sys
import time

from pyspark import InheritableThread
from pyspark.sql import SparkSession

# What the libraries do not do again by themselves, because it read what another writer has changed.
CONFLICTS = ("ConcurrentAppendException", "ConcurrentDeleteReadException", "ConcurrentDeleteDeleteException",
             "DELTA_CONCURRENT_", "ValidationException: Found conflicting", "ValidationException: Missing required files",
             "CommitFailedException")
TURNS = 200


def add_one(spark, counter):
    for _ in range(TURNS):
        try:
            spark.sql(f"update {counter} set count = count + 1")
            return
        except Exception as error:  # noqa: BLE001: its kind is the library's own
            if not any(conflict in str(error) for conflict in CONFLICTS):
                raise
    raise RuntimeError(f"{counter}: {TURNS} conflicts")


def write(spark, names, first, writer, appends, increments):
    table, counter = names
    for number in range(first, first + appends):
        spark.sql(f"insert into {table} values ({number}, {writer})")
    for _ in range(increments):
        add_one(spark, counter)


def main(given, table, counter, writer, threads, appends, increments, gate):
    writer, threads, appends, increments = (int(number) for number in (writer, threads, appends, increments))
    builder = SparkSession.builder.master("local[2]")
    for name, value in json.loads(given).items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    failures = []

    def run(thread):
        try:
            first = (writer * threads + thread) * appends
            write(spark, (table, counter), first, writer, appends, increments)
        except Exception as error:  # noqa: BLE001: told below, and the exit code says it
            failures.append(str(error))

    # It is ready when it has looked at the table: the classes are loaded.
    spark.table(table).collect()
    open(f"{gate}-{writer}", "w").close()
    while not os.path.exists(gate):
        time.sleep(0.05)
    running = [InheritableThread(target=run, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    spark.stop()
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main(*sys.argv[1:])
