"""Tables of Iceberg and Delta Lake. Both count on a rename that replaces nothing: of two writers, one commits a version."""

import json
import sys
from pathlib import Path

import faults
import spark as claims
import tools
from report import equal, holds, until
from session import Files, blocks, here

# Where docs/spark.md has their jars.
JARS = "/opt/lakes"
ROWS = "select cast(id as int) as id, concat('row ', id) as text, cast(id % 3 as int) as part from range({}, {})"
WRITERS, THREADS, APPENDS, INCREMENTS = 3, 2, 6, 2
# Delta has 50 tasks for each look at a table, and thousands for each cleaning.
FEW_TASKS = {"spark.databricks.delta.snapshotPartitions": "2", "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2"}
DAYS_MS = 24 * 60 * 60 * 1000


class Lake:
    """Tables of one format on Curvine, and the same on local files."""

    def __init__(self, spark, name, lake, local, place, local_place):
        self.spark, self.name, self.files = spark, name, Files(spark, place)
        self.lake, self.local, self.place, self.local_place = lake, local, place, local_place

    def rows(self, query):
        return [tuple(row) for row in self.spark.sql(query).collect()]

    def make(self, table, columns, more=""):
        self.spark.sql(f"create table {self.lake}{table} ({columns}) using {self.name} {more}")

    def make_twice(self, table, columns, more=""):
        self.make(table, columns, more)
        self.spark.sql(f"create table {self.local}{table} ({columns}) using {self.name} {more} {self.located(table)}")

    def run(self, statement, table):
        """On both tables; what the one on Curvine has afterwards, which is what the local one has."""
        for one in (f"{self.lake}{table}", f"{self.local}{table}"):
            self.spark.sql(statement.format(table=one))
        return self.alike(table)

    def alike(self, table, version="", local_version=""):
        found, expected = (
            sorted(self.rows(f"select * from {one}"), key=repr)
            for one in (f"{self.lake}{table}{version}", f"{self.local}{table}{local_version}")
        )
        equal(found, expected, "rows beside those of local files")
        return {part: (len(ids), sum(ids)) for part in sorted({row[2] for row in found})
                for ids in [[row[0] for row in found if row[2] == part]]}

    def appends(self, table):
        self.look_again(table)
        return len(self.versions(table, self.lake))

    def look_again(self, table):
        """A session keeps for a while what it knows of a table of Iceberg, whatever others commit."""
        self.spark.sql(f"refresh table {self.lake}{table}")

    def below(self, table):
        """The files of data of a table; not those that say which of them count."""
        names = self.files.below(f"{self.place}/{table}")
        return {name for name in names if name.endswith(".parquet") and not name.startswith(("metadata/", "_delta_log/"))}

    def counted(self, table):
        """Those that count now."""
        return {path.split(f"{self.place}/{table}/", 1)[1] for path in self.paths_counted(table)}


class Iceberg(Lake):
    def everywhere(self, table):
        """Its name in any session."""
        return f"{self.lake}{table}"

    def located(self, table):
        """The catalog knows it."""
        return ""

    def versions(self, table, catalog):
        """The ids of the snapshots, the first one first."""
        return [row[0] for row in self.rows(f"select snapshot_id from {catalog}{table}.snapshots order by committed_at")]

    def paths_counted(self, table):
        return [row[0] for row in self.rows(f"select file_path from {self.lake}{table}.files")]

    def make_at(self, path, frame):
        """Spark's own way to make one asks a metastore of Hive."""
        java = self.spark._jvm.org.apache.iceberg
        schema = java.spark.SparkSchemaUtil.convert(frame._jdf.schema())
        java.hadoop.HadoopTables(self.files.configuration).create(schema, path)
        frame.write.format(self.name).mode("append").save(path)

    def conflicts(self, table, log):
        return sum("Tasks: Retrying task after failure" in line for line in open(log))

    def compact(self, table):
        return f"call {self.lake.split('.')[0]}.system.rewrite_data_files(table => 'shop.{table}', " \
               "options => map('rewrite-all', 'true'))"

    def clean(self, table):
        catalog = self.lake.split(".")[0]
        now = f"timestamp '{self.rows('select cast(now() as string)')[0][0]}'"
        self.spark.sql(f"call {catalog}.system.expire_snapshots(table => 'shop.{table}', older_than => {now}, retain_last => 1)")
        equal(self.appends(table), 1, "snapshots")
        equal(self.below(table), self.counted(table), "files of data after the other snapshots expired")
        # What was made just now may be of a writer that is about to commit it.
        old, young = (f"{self.place}/{table}/data/part=0/{name}.parquet" for name in ("old", "young"))
        for stray in (old, young):
            self.files.fs.create(self.files.path(stray)).close()
        modified = self.files.fs.getFileStatus(self.files.path(old)).getModificationTime()
        self.files.fs.setTimes(self.files.path(old), modified - 4 * DAYS_MS, -1)
        equal(self.rows(f"call {catalog}.system.remove_orphan_files(table => 'shop.{table}')"), [(old,)], "orphans")
        equal(self.below(table), {*self.counted(table), "data/part=0/young.parquet"}, "files of data")


class Delta(Lake):
    def everywhere(self, table):
        """The catalog of a session is its own."""
        return f"delta.`{self.place}/{table}`"

    def located(self, table):
        return f"location '{self.local_place}/{table}'"

    def history(self, table, catalog):
        return self.spark.sql(f"describe history {catalog}{table}")

    def versions(self, table, catalog):
        """Their numbers, without the first one, which has no rows."""
        return sorted(row.version for row in self.history(table, catalog).collect() if row.operation != "CREATE TABLE")

    def paths_counted(self, table):
        return self.spark.table(f"{self.lake}{table}").inputFiles()

    def make_at(self, path, frame):
        frame.write.format(self.name).save(path)

    def conflicts(self, table, log):
        """Commits that were made upon another version than the one that their writer had read."""
        return self.history(table, self.lake).where("readVersion < version - 1").count()

    def compact(self, table):
        return f"optimize {self.lake}{table}"

    def clean(self, table):
        self.files.fs.create(self.files.path(f"{self.place}/{table}/part=0/stray.parquet")).close()
        self.spark.sql("set spark.databricks.delta.retentionDurationCheck.enabled = false")
        self.spark.sql(f"vacuum {self.lake}{table} retain 0 hours")
        equal(self.below(table), self.counted(table), "files of data")


def options(format_of_block, play, node):
    """What docs/spark.md says of a format."""
    lines = here(blocks("spark.md", "properties")[format_of_block], play.jar, node.master)
    return dict(line.split() for line in lines.replace(JARS, str(tools.jars("lakes"))).splitlines())


def iceberg(play, node):
    place = f"file://{play.scratch.path}/iceberg"
    local = {"spark.sql.catalog.local": "org.apache.iceberg.spark.SparkCatalog", "spark.sql.catalog.local.type": "hadoop",
             "spark.sql.catalog.local.warehouse": place}
    with play.session(node, **options(3, play, node), **local) as spark:
        lake = Iceberg(spark, "iceberg", "lake.shop.", "local.shop.", "cv://cluster/iceberg/shop", f"{place}/shop")
        play_of(lake, play, node)
        with play.check("iceberg: the hint of a table that is named by its path is its last version"):
            path = "cv://cluster/lakes/iceberg"
            names = lake.files.below(f"{path}/metadata")
            last = max(int(name[1:].split(".")[0]) for name in names if name.endswith(".metadata.json"))
            holds(last > 1, f"there was one commit: {sorted(names)}")
            equal(lake.files.read(f"{path}/metadata/version-hint.text"), str(last), "the hint")
            equal([name for name in names if name.startswith(".")], [], "what commits left")
        with play.check("iceberg: a namespace that is dropped leaves nothing"):
            for row in spark.sql("show tables in lake.shop").collect():
                spark.sql(f"drop table lake.shop.{row.tableName} purge")
            spark.sql("drop namespace lake.shop")
            equal(lake.files.fs.exists(lake.files.path(lake.place)), False, "whether its directory is there")


def delta(play, node):
    with play.session(node, **options(4, play, node), **FEW_TASKS) as spark:
        place = f"file://{play.scratch.path}/delta"
        lake = Delta(spark, "delta", "", "local_", "cv://cluster/warehouse", place)
        play_of(lake, play, node)
        with play.check("delta: every tenth version has a checkpoint, and the last one is named"):
            log = lake.files.below(f"{lake.place}/appended/_delta_log")
            last = json.loads(lake.files.read(f"{lake.place}/appended/_delta_log/_last_checkpoint"))["version"]
            equal(last, WRITERS * THREADS * APPENDS // 10 * 10, "the last checkpoint")
            checkpoints = [name for name in log if name.endswith(".checkpoint.parquet")]
            equal(sorted(checkpoints)[-1], f"{last:020}.checkpoint.parquet", "the newest file of a checkpoint")
            equal([name for name in log if name.endswith(".tmp")], [], "what commits left")


def play_of(lake, play, node):
    for one in (changes, paths, streams):
        one(lake, play.check)
    writers(lake, play, node, "appended")
    writers(lake, play, node, "elected", killed=True)


def changes(lake, check):
    name = lake.name
    with check(f"{name}: a table in partitions is made and added to"):
        lake.make_twice("sales", "id int, text string, part int", "partitioned by (part)")
        found = lake.run(f"insert into {{table}} {ROWS.format(0, 30)}", "sales")
        equal(found, {0: (10, 135), 1: (10, 145), 2: (10, 155)}, "rows and sums of the partitions")
        holds(any("part=2/" in file for file in lake.below("sales")), f"files in a partition: {lake.below('sales')}")
        found = lake.run(f"insert into {{table}} {ROWS.format(30, 60)}", "sales")
        equal(found, {0: (20, 570), 1: (20, 590), 2: (20, 610)}, "rows and sums of the partitions")
    with check(f"{name}: a partition is overwritten, and the others stay"):
        found = lake.run("insert overwrite {table} partition (part = 1) select 100, 'a hundred'", "sales")
        equal(found, {0: (20, 570), 1: (1, 100), 2: (20, 610)}, "rows and sums of the partitions")
    with check(f"{name}: rows are merged, updated and deleted"):
        found = lake.run(
            "merge into {table} t using (select * from values (100, 'merged', 1), (200, 'new', 2) as v(id, text, part)) s "
            "on t.id = s.id when matched then update set text = s.text when not matched then insert *", "sales")
        equal(found, {0: (20, 570), 1: (1, 100), 2: (21, 810)}, "rows and sums of the partitions")
        lake.run("update {table} set text = 'updated' where part = 0 and id < 30", "sales")
        found = dict(lake.rows(f"select text, count(*) from {lake.lake}sales where text not like 'row%' group by text"))
        equal(found, {"merged": 1, "new": 1, "updated": 10}, "rows by their text")
        found = lake.run("delete from {table} where part = 2 and id >= 30", "sales")
        equal(found, {0: (20, 570), 1: (1, 100), 2: (10, 155)}, "rows and sums of the partitions")
    with check(f"{name}: a column is added, which is null in the rows from before"):
        lake.run("alter table {table} add columns (more string)", "sales")
        found = lake.run("insert into {table} values (300, 'row 300', 3, 'more')", "sales")
        equal(found, {0: (20, 570), 1: (1, 100), 2: (10, 155), 3: (1, 300)}, "rows and sums of the partitions")
        equal(lake.rows(f"select count(*), count(more), max(more) from {lake.lake}sales"), [(32, 1, "more")], "the column")
    with check(f"{name}: earlier versions are read as they were"):
        for at, parts in ((0, {0: (10, 135), 1: (10, 145), 2: (10, 155)}), (1, {0: (20, 570), 1: (20, 590), 2: (20, 610)}),
                          (2, {0: (20, 570), 1: (1, 100), 2: (20, 610)})):
            asked = [f" version as of {lake.versions('sales', catalog)[at]}" for catalog in (lake.lake, lake.local)]
            equal(lake.alike("sales", *asked), parts, f"rows and sums of the partitions of version {at}")
    with check(f"{name}: files are made one for each partition; those of earlier versions and strays are removed"):
        lake.spark.sql(lake.compact("sales"))
        equal(len(lake.counted("sales")), 4, "files that count")
        holds(len(lake.below("sales")) > 4, "there is nothing to remove")
        lake.clean("sales")
        found = lake.alike("sales")
        equal(found, {0: (20, 570), 1: (1, 100), 2: (10, 155), 3: (1, 300)}, "rows and sums of the partitions")
    with check(f"{name}: a table that is overwritten as a whole, and one that is dropped, which leaves nothing"):
        three = ROWS.format(0, 3).replace(" from", ", cast(null as string) as more from")
        found = lake.run(f"insert overwrite {{table}} {three}", "sales")
        equal(found, {0: (1, 0), 1: (1, 1), 2: (1, 2)}, "rows and sums of the partitions")
        lake.spark.sql(f"drop table {lake.lake}sales" + (" purge" if name == "iceberg" else ""))
        equal(lake.files.fs.exists(lake.files.path(f"{lake.place}/sales")), False, "whether its directory is there")


def paths(lake, check):
    name, path = lake.name, f"cv://cluster/lakes/{lake.name}"
    with check(f"{name}: a table that is named by its path is made, added to and overwritten"):
        frame = claims.numbered(lake.spark)
        lake.make_at(path, frame)
        frame.selectExpr("id + 5000 as id", "text", "part").write.format(name).mode("append").save(path)
        equal(claims.sums(lake.spark.read.format(name).load(path)), claims.sums_of(2 * claims.ROWS), "rows")
        frame.write.format(name).mode("overwrite").save(path)
        equal(claims.sums(lake.spark.read.format(name).load(path)), claims.sums_of(claims.ROWS), "rows")


def streams(lake, check):
    name = lake.name
    with check(f"{name}: a stream from one table into another, begun again from its checkpoint, has each row once"):
        for table in ("arrived", "passed"):
            lake.make(table, "id int, text string, part int")

        def run(first, last):
            if last > first:
                lake.spark.sql(f"insert into {lake.lake}arrived {ROWS.format(first, last)}")
            lake.spark.readStream.table(f"{lake.lake}arrived").writeStream.format(name).outputMode("append") \
                .option("checkpointLocation", f"cv://cluster/lakes/{name}-checkpoint").trigger(availableNow=True) \
                .toTable(f"{lake.lake}passed").awaitTermination()
            return claims.sums(lake.spark.table(f"{lake.lake}passed"))

        equal(run(0, 100), claims.sums_of(100), "rows after the first run")
        equal(run(100, 200), claims.sums_of(200), "rows after the second")
        equal(run(200, 200), claims.sums_of(200), "rows after one with nothing new")


def writers(lake, play, node, table, killed=False):
    """In processes of their own: within one, the libraries have locks, and would hide what the file system does."""
    appends = WRITERS * THREADS * APPENDS
    more = ", while the leader is killed" if killed else ""
    claim = f"{lake.name}: {WRITERS} processes append to one table {appends} times{more}: each row is there once"
    counter = f"{table}_counter"
    with play.check(claim):
        # Iceberg gives up after four attempts if it is not told otherwise.
        patient = "tblproperties ('commit.retry.num-retries' = '50', 'commit.retry.min-wait-ms' = '20')"
        lake.make(table, "id int, writer int", patient if lake.name == "iceberg" else "")
        lake.make(counter, "count int", patient if lake.name == "iceberg" else "")
        lake.spark.sql(f"insert into {lake.lake}{counter} values (0)")
        before = lake.conflicts(table, play.scratch.path / "spark.log")
        gate = play.scratch.path / f"{lake.name}-{table}"
        kept = ("spark.sql.", "spark.jars", "spark.ui.", "spark.local.dir", "spark.databricks.", "spark.driver.extraJavaOptions")
        given = {key: value for key, value in lake.spark.sparkContext.getConf().getAll() if key.startswith(kept)}
        program = Path(__file__).with_name("writer.py")
        names = lake.everywhere(table), lake.everywhere(counter)
        started = [
            play.scratch.start(
                [sys.executable, "-B", program, json.dumps(given), *names, number, THREADS, APPENDS, INCREMENTS, gate],
                f"{gate.name}-{number}.log",
            ) for number in range(WRITERS)
        ]
        try:
            ready = [Path(f"{gate}-{number}") for number in range(WRITERS)]
            until(lambda: ended(started) or all(path.exists() for path in ready), "all are ready", 120)
            gate.touch()
            if killed:
                until(lambda: ended(started) or lake.appends(table) >= appends // 4, "a quarter is appended", 120)
                holds(lake.appends(table) < appends, "all was appended before the leader was killed")
                leader = faults.leading(play, node)
                node.of("master")[leader - 1].kill()
            until(lambda: ended(started, WRITERS), "the writers end", 600)
        finally:
            for process in started:
                process.kill()
                process.wait()
        if killed:
            holds(faults.leading(play, node) != leader, "the killed master leads")
            node.of("master")[leader - 1].start()
        lake.look_again(table)
        equal(claims.sums(lake.spark.table(f"{lake.lake}{table}")), claims.sums_of(appends), "rows")
        equal(lake.appends(table), appends, "versions with rows")
        holds(lake.conflicts(table, play.scratch.path / "spark.log") > before, "no two of them committed at the same time")
    with play.check(f"{lake.name}: they add to one number {WRITERS * THREADS * INCREMENTS} times{more}: none is lost"):
        lake.look_again(counter)
        equal(lake.rows(f"select count from {lake.lake}{counter}"), [(WRITERS * THREADS * INCREMENTS,)], "the number")


def ended(started, wanted=1):
    """How many of the writers have ended, if it is enough; one that failed is told of."""
    codes = [process.poll() for process in started]
    holds(not any(codes), f"exit codes of the writers: {codes}; see their logs")
    return sum(code is not None for code in codes) >= wanted
