"""What Spark does with a file system: each claim here holds on a local disk and on HDFS, and must hold on Curvine."""

import json
import os

from pyspark import InheritableThread
from pyspark.sql import functions as F

import tables
import tasks
from report import equal, holds, until
from session import Files

ROWS = 5000
FORMATS = ("parquet", "orc", "csv", "json")


def numbered(spark, rows=ROWS):
    return spark.range(rows).selectExpr("cast(id as int) as id", "concat('row ', id) as text", "cast(id % 3 as int) as part")


def sums(frame):
    """How many rows, how many of them are different, and what their numbers come to."""
    return tuple(frame.agg(F.count("*"), F.countDistinct("id"), F.sum("id")).first())


def sums_of(rows):
    return rows, rows, rows * (rows - 1) // 2


def formats(spark, root, check, **_):
    for name in FORMATS:
        with check(f"Spark reads as {name} what it wrote"):
            out = f"{root}/formats/{name}"
            numbered(spark).write.format(name).option("header", "true").save(out)
            schema = "id int, text string, part int"
            read = spark.read.format(name).option("header", "true").schema(schema).load(out)
            equal(read.exceptAll(numbered(spark)).count(), 0, "rows that were not written")
            equal(sums(read), sums_of(ROWS), "rows")
            # Not only the lengths: what a reader asks in the middle of a file is answered from there.
            equal(read.where("id = 4321").collect()[0].text, "row 4321", "one row")


def overwriting(spark, root, check, **_):
    out = f"{root}/overwriting"
    files = Files(spark, root)

    def parts():
        return {row.part: row["count"] for row in spark.read.parquet(out).groupBy("part").count().collect()}

    def write(frame, mode, **options):
        frame.write.mode(mode).options(**options).partitionBy("part").parquet(out)

    with check("a write in partitions makes a directory for each"):
        write(numbered(spark, 30), "error")
        equal(parts(), {0: 10, 1: 10, 2: 10}, "rows of each partition")
        equal({name.split("/")[0] for name in files.below(out)}, {"_SUCCESS", "part=0", "part=1", "part=2"}, "directories")
    with check("a dynamic overwrite replaces the partitions that it has rows of, and no others"):
        write(numbered(spark, 60).where("part = 1"), "overwrite", partitionOverwriteMode="dynamic")
        equal(parts(), {0: 10, 1: 20, 2: 10}, "rows of each partition")
        equal([name for name in files.below(out) if ".spark-staging" in name], [], "what is left of it")
    with check("an append adds rows"):
        write(numbered(spark, 3), "append")
        equal(parts(), {0: 11, 1: 21, 2: 11}, "rows of each partition")
    with check("an overwrite replaces all, also of what the same job reads in another place"):
        write(spark.read.parquet(f"{root}/formats/parquet").where("id < 9 and part < 2"), "overwrite")
        equal(parts(), {0: 3, 1: 3}, "rows of each partition")


def tables_of_a_warehouse(spark, root, check, **_):
    files = Files(spark, root)
    warehouse = spark.conf.get("spark.sql.warehouse.dir")
    with check("a table is made in the warehouse, added to, and overwritten by partitions"):
        numbered(spark, 30).write.partitionBy("part").saveAsTable("numbers")
        holds(any(files.below(f"{warehouse}/numbers")), "the table has no files in the warehouse")
        spark.sql("insert into numbers partition (part = 7) select 100, 'a hundred'")
        spark.sql("insert overwrite numbers partition (part = 0) select 200, 'two hundred'")
        found = spark.sql("select part, count(*), sum(id) from numbers group by part order by part").collect()
        equal([tuple(row) for row in found], [(0, 1, 200), (1, 10, 145), (2, 10, 155), (7, 1, 100)], "the table")
    with check("a table that is dropped leaves nothing in the warehouse"):
        spark.sql("drop table numbers")
        equal(files.below(f"{warehouse}/numbers"), {}, "files")


def streaming(spark, root, check, **_):
    base = f"{root}/streaming"

    def arrive(first):
        spark.range(first, first + 100).coalesce(1).write.mode("append").json(f"{base}/in")

    def run():
        spark.readStream.schema("id long").json(f"{base}/in").writeStream.format("parquet") \
            .option("checkpointLocation", f"{base}/checkpoint").trigger(availableNow=True).start(f"{base}/out").awaitTermination()
        return sums(spark.read.parquet(f"{base}/out"))

    with check("a stream that is begun again from its checkpoint has each row once"):
        arrive(0)
        equal(run(), sums_of(100), "rows after the first run")
        arrive(100)
        equal(run(), sums_of(200), "rows after the second")
        equal(run(), sums_of(200), "rows after one with nothing new")
    with check("counts that a stream keeps between its runs are kept in its checkpoint"):
        def count():
            parts = spark.readStream.schema("id long").json(f"{base}/in").selectExpr("id % 4 as part").groupBy("part").count()
            parts.writeStream.outputMode("complete").option("checkpointLocation", f"{base}/counting") \
                .trigger(availableNow=True).foreachBatch(lambda frame, _: counted.append(frame.collect())) \
                .start().awaitTermination()
            return sorted(tuple(row) for row in counted[-1])
        counted = []
        equal(count(), [(part, 50) for part in range(4)], "the first counts")
        arrive(200)
        equal(count(), [(part, 75) for part in range(4)], "the counts after more rows")


def committers(spark, root, check, **_):
    for version, seen in (("1", "nothing of it"), ("2", "what its ended tasks committed")):
        with check(f"the committer v{version} has all rows of a job that ends, and shows {seen} of one that fails"):
            out = f"{root}/committers/v{version}"
            options = {"mapreduce.fileoutputcommitter.algorithm.version": version}
            numbered(spark).repartition(4).write.options(**options).parquet(f"{out}/ended")
            equal(sums(spark.read.parquet(f"{out}/ended")), sums_of(ROWS), "rows")
            # Two tasks run at a time: the third begins when another has ended.
            rows = spark.sparkContext.parallelize(range(3), 3).mapPartitionsWithIndex(lambda index, _: tasks.failing(index))
            failed = None
            try:
                rows.toDF("id int, text string").write.options(**options).csv(f"{out}/failed")
            except Exception as error:  # noqa: BLE001: its kind is Spark's own
                failed = str(error)
            holds(failed and "this task was to fail" in failed, f"the job did not fail as it was to: {failed}")
            left = Files(spark, root).below(f"{out}/failed")
            equal(bool(left), version == "2", f"whether there are files: {left}")
            equal([name for name in left if name.startswith("_")], [], "files of tasks that did not end")


def kills(spark, root, check, scratch, **_):
    files = Files(spark, root)
    schema = "id int, text string"

    with check("a task that is killed is made anew, and its rows are there once"):
        out, killed = f"{root}/kills/task", f"{scratch.path}/killed"
        rows = spark.sparkContext.parallelize(range(3), 3)
        rows = rows.mapPartitionsWithIndex(lambda index, _: tasks.killed_once(index, killed))
        rows.toDF(schema).write.csv(out)
        holds(os.path.exists(killed), "the task was not killed")
        equal(sums(spark.read.schema(schema).csv(out)), sums_of(3 * tasks.ROWS), "rows")
        names = files.below(out)
        equal(len(names), 4, f"files of three tasks, and _SUCCESS: {sorted(names)}")
    with check("a job that is cancelled while it writes leaves no partial result"):
        out, gate, ended = f"{root}/kills/job", f"{scratch.path}/gate", []

        def job():
            rows = spark.sparkContext.parallelize(range(2), 2).mapPartitionsWithIndex(lambda index, _: tasks.halting(index, gate))
            try:
                rows.toDF(schema).write.csv(out)
                ended.append("it ended well")
            except Exception as error:  # noqa: BLE001: its kind is Spark's own
                ended.append(str(error))

        writer = InheritableThread(target=job)
        writer.start()
        try:
            until(lambda: ended or all(os.path.exists(f"{gate}-{index}") for index in range(2)), "both tasks have rows", 60)
            until(lambda: ended or files.below(out), "a task has written", 60)
            equal(ended, [], "the job before it is cancelled")
            names = list(files.below(out))
            holds(names and all(name.startswith("_temporary/") for name in names), f"where it wrote: {names}")
            spark.sparkContext.cancelAllJobs()
        finally:
            open(gate, "w").close()
            writer.join()
        holds("cancelled" in ended[0], f"the job was not cancelled: {ended[0]}")
        until(lambda: not files.below(out), "what the cancelled job had written is gone")


def queries(spark, root, check, scratch, scale=20, only=("pricing", "priority", "nations"), **_):
    rows = int(tables.NAMES["lineitem"][1] * scale)
    with check(f"{len(only)} queries over {rows} rows like TPC-H's: the answers of local files"):
        places = {"cv": f"{root}/tables", "local": f"file://{scratch.path}/tables"}
        for place in places.values():
            tables.write(spark, place, scale)
        found = {name: tables.answers(spark, place, only) for name, place in places.items()}
        equal(found["cv"], found["local"], "answers")


def manifest(spark, root, check, scratch):
    with check("the manifest committer has all rows, of partitions too, and says that it was used"):
        out = f"{root}/committers/manifest"
        numbered(spark).repartition(4).write.partitionBy("part").parquet(out)
        equal(sums(spark.read.parquet(out)), sums_of(ROWS), "rows")
        said = json.loads(Files(spark, root).read(f"{out}/_SUCCESS"))
        holds("manifest.ManifestCommitter" in said["committer"], f"another committer was used: {said['committer']}")
    with check("with the manifest committer, overwrites of partitions do what they do on a local disk"):
        def overwritten(out):
            numbered(spark, 30).write.partitionBy("part").parquet(out)
            rows = numbered(spark, 60).where("part = 1").write.mode("overwrite").partitionBy("part")
            rows.option("partitionOverwriteMode", "dynamic").parquet(out)
            return {row.part: row["count"] for row in spark.read.parquet(out).groupBy("part").count().collect()}

        equal(overwritten(f"{root}/overwritten"), overwritten(f"file://{scratch.path}/overwritten"), "rows of each partition")


SMALL = (formats, overwriting, tables_of_a_warehouse, streaming, committers, kills, queries)
