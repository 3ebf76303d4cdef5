"""Spark while the leader of a cluster, and an executor of its own, are killed."""

import os

from pyspark import InheritableThread

import spark as claims
import tables
import tasks
from cv import Cv
from report import equal, holds, until
from session import Files

SCHEMA = "id int, text string"
KILLS = 3


class Job:
    """A write of four tasks, which halt in the midst of their rows until they are told to go on."""

    tasks = 4

    def __init__(self, spark, out, gate):
        self.spark, self.out, self.gate = spark, out, gate
        self.failure = None
        self.thread = InheritableThread(target=self.run)
        self.thread.start()

    def run(self):
        gate = self.gate
        rows = self.spark.sparkContext.parallelize(range(self.tasks), self.tasks)
        try:
            rows.mapPartitionsWithIndex(lambda index, _: tasks.halting(index, gate)).toDF(SCHEMA).write.parquet(self.out)
        except Exception as error:  # noqa: BLE001: its kind is Spark's own
            self.failure = str(error)

    def writes(self):
        """Two tasks run at a time; both have rows, and a file is there."""
        assert self.failure is None, self.failure
        return all(os.path.exists(f"{self.gate}-{index}") for index in range(2)) and Files(self.spark, self.out).below(self.out)

    def go_on(self):
        open(self.gate, "w").close()

    def end(self):
        self.thread.join()
        assert self.failure is None, f"the job failed: {self.failure}"


def leading(play, node):
    """The number of the master that leads."""
    masters = Cv(play.programs, node).json("report")[0]["masters"]
    return next(master["id"] for master in masters if master["role"] == "leader")


def leaders(spark, root, play, node):
    """Each job is in the midst of its writes when the leader dies; it commits while the others elect another one."""
    for turn in range(KILLS):
        with play.check(f"a job goes on when the leader is killed in the midst of it, and has each row once (kill {turn + 1})"):
            job = Job(spark, f"{root}/leader/{turn}", f"{play.scratch.path}/leader-{turn}")
            try:
                until(job.writes, "the job writes", 120)
                killed = leading(play, node)
                victim = node.of("master")[killed - 1]
                victim.kill()
            finally:
                job.go_on()
            job.end()
            rows = job.tasks * tasks.ROWS
            found = claims.sums(spark.read.schema(SCHEMA).parquet(job.out).where("text <> 'late'"))
            equal(found, claims.sums_of(rows), "rows")
            left = Files(spark, root).below(job.out)
            equal(len(left), job.tasks + 1, f"files of the tasks, and _SUCCESS: {sorted(left)}")
            holds(leading(play, node) != killed, "the killed master leads")
            victim.start()


def queried(spark, root, play, node):
    with play.check("queries say what they say of local files, with the leader killed before the third"):
        places = {"cv": f"{root}/tables", "local": f"file://{play.scratch.path}/tables"}
        for place in places.values():
            tables.write(spark, place, 20)
        expected = tables.answers(spark, places["local"], tables.QUERIES)
        found = {}
        for number, name in enumerate(tables.QUERIES):
            if number == 2:
                node.of("master")[leading(play, node) - 1].kill()
            found.update(tables.answers(spark, places["cv"], [name]))
        equal(found, expected, "answers")


def executors(spark, root, play, **_):
    with play.check("an executor that is killed while it writes: its task is made anew, and each row is there once"):
        out = f"{root}/executor"
        rows = spark.sparkContext.parallelize(range(3), 3)
        rows = rows.mapPartitionsWithIndex(lambda index, _: tasks.executor_killed_once(index))
        rows.toDF(SCHEMA).write.csv(out)
        equal(claims.sums(spark.read.schema(SCHEMA).csv(out)), claims.sums_of(3 * tasks.ROWS), "rows")
        left = Files(spark, root).below(out)
        equal(len(left), 4, f"files of three tasks, and _SUCCESS: {sorted(left)}")
        ended = len([1 for line in open(f"{play.scratch.path}/spark.log") if "Lost executor" in line])
        equal(ended, 1, "executors that were lost")
