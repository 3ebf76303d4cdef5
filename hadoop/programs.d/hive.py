"""Tables of Hive, by the classes of Hive that Spark has: its metastore's and its formats'."""

from report import equal, holds
from session import Files


def rows(spark, query):
    return [tuple(row) for row in spark.sql(query).collect()]


def tables(spark, root, check, scratch):
    files = Files(spark, root)
    spark.sql("set hive.exec.dynamic.partition.mode=nonstrict")
    # Otherwise Spark reads and writes these formats by itself.
    for key in ("convertMetastoreParquet", "convertMetastoreOrc", "convertInsertingPartitionedTable"):
        spark.sql(f"set spark.sql.hive.{key}=false")
    with check("a database of Hive has its directory where it is told to"):
        spark.sql(f"create database shop location '{root}/shop'")
        spark.sql("use shop")
    for stored in ("textfile", "orc", "parquet", "sequencefile", "rcfile"):
        with check(f"a table of Hive stored as {stored}: inserts, dynamic partitions, overwrites"):
            spark.sql(f"create table {stored}s (id int, text string) partitioned by (part int) stored as {stored}")
            spark.sql(f"insert into {stored}s select cast(id as int), concat('row ', id), cast(id % 3 as int) from range(30)")
            spark.sql(f"insert overwrite table {stored}s partition (part = 1) select 100, 'a hundred'")
            spark.sql(f"insert into {stored}s partition (part = 9) select 200, 'two hundred'")
            found = rows(spark, f"select part, count(*), sum(id), max(text) from {stored}s group by part order by part")
            expected = [(0, 10, 135, "row 9"), (1, 1, 100, "a hundred"), (2, 10, 155, "row 8"), (9, 1, 200, "two hundred")]
            equal(found, expected, "the table")
            names = files.below(f"{root}/shop/{stored}s")
            holds(any(name.startswith("part=9/") for name in names), f"no files below the database: {sorted(names)}")
    with check("files that are loaded into a table are moved there; a partition that is dropped goes"):
        spark.range(5).selectExpr("concat(id, chr(1), 'loaded')").write.text(f"{root}/arrived")
        spark.sql(f"load data inpath '{root}/arrived' into table textfiles partition (part = 5)")
        found = rows(spark, "select count(*), sum(id), max(text) from textfiles where part = 5")
        equal(found, [(5, 10, "loaded")], "the partition")
        equal([name for name in files.below(f"{root}/arrived") if name.startswith("part-")], [], "what stayed where it was")
        spark.sql("alter table textfiles drop partition (part = 0)")
        holds(not any(name.startswith("part=0/") for name in files.below(f"{root}/shop/textfiles")), "the partition has files")
    with check("an external table finds its partitions, and stays when it is dropped; a renamed one moves"):
        spark.sql(f"create external table outside (id int, text string) partitioned by (part int) stored as orc "
                  f"location '{root}/shop/orcs'")
        spark.sql("msck repair table outside")
        equal(rows(spark, "select count(*) from outside"), rows(spark, "select count(*) from orcs"), "rows")
        spark.sql("drop table outside")
        equal(rows(spark, "select count(*) from orcs"), [(22,)], "rows afterwards")
        spark.sql("alter table orcs rename to moved")
        equal(rows(spark, "select count(*) from moved"), [(22,)], "rows of the renamed table")
        equal(files.below(f"{root}/shop/orcs"), {}, "files in the old place")
    with check("a database that is dropped with its tables leaves nothing"):
        spark.sql("use default")
        spark.sql("drop database shop cascade")
        equal(files.below(f"{root}/shop"), {}, "files")
