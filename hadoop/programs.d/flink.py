"""Flink's SQL client with its own small cluster, as docs/flink.md has it configured."""

import json
import re

from cv import Cv
from machines import clean_environment
from report import equal, holds, until
from session import blocks, here

PAGE = "flink.md"
# What Flink's own scripts open for it, on a newer Java.
OPENED = ("lang", "lang.reflect", "util", "util.concurrent", "net", "io", "nio", "time", "text")
ROWS = 60
PLACE = "/flink/checkpoints"

# Numbers from 1 on, each once: how far it has come is all the state there is.
STREAM = f"""
SET 'execution.runtime-mode' = 'streaming';
SET 'execution.checkpointing.interval' = '200ms';
SET 'execution.checkpointing.externalized-checkpoint-retention' = 'RETAIN_ON_CANCELLATION';
SET 'state.storage.fs.memory-threshold' = '0';
SET 'parallelism.default' = '1';
SET 'table.dml-sync' = 'true';
CREATE TABLE numbers (id INT) WITH ('connector' = 'datagen', 'fields.id.kind' = 'sequence', 'fields.id.start' = '1',
    'fields.id.end' = '{ROWS}', 'rows-per-second' = '10');
CREATE TABLE seen (id INT) WITH ('connector' = 'print');
"""
RUN = "INSERT INTO seen SELECT id FROM numbers;\n"


class Flink:
    def __init__(self, play, node, flink, hadoop):
        self.play, self.place = play, play.scratch.path / "flink"
        self.place.mkdir()
        # Its small cluster, in the process of the client.
        local = "execution.target: local\n"
        (self.place / "flink-conf.yaml").write_text(local + here(blocks(PAGE, "yaml")[0], play.jar, node.master))
        (self.place / "log4j2.properties").write_text(
            "rootLogger.level = info\nrootLogger.appenderRef.file.ref = file\nappender.file.type = File\n"
            f"appender.file.name = file\nappender.file.fileName = {self.place}/flink.log\n"
            "appender.file.layout.type = PatternLayout\n"
            "appender.file.layout.pattern = %d %p %c{1}: %m%n%ex\n"
        )
        # Flink has a log of its own.
        of_hadoop = [jar for jar in sorted(hadoop.glob("*.jar")) if "slf4j" not in jar.name and "log4j" not in jar.name]
        self.path = ":".join(map(str, [*sorted(flink), play.jar, *of_hadoop]))

    def start(self, name, statements):
        """The client, with a script."""
        script = self.place / f"{name}.sql"
        script.write_text(statements)
        opened = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED]
        command = [
            "java", "-XX:TieredStopAtLevel=1", *opened, f"-Duser.home={self.place}",
            f"-Dlog4j.configurationFile={self.place}/log4j2.properties", "-cp", self.path,
            "org.apache.flink.table.client.SqlClient", "embedded", "-f", script,
        ]
        environment = clean_environment(FLINK_CONF_DIR=str(self.place))
        return self.play.scratch.start(command, f"{name}.out", env=environment, cwd=self.place)

    def run(self, name, statements):
        """What a script says; it must succeed."""
        code = self.start(name, statements).wait(timeout=300)
        said = self.said(name)
        assert code == 0 and "[ERROR]" not in said, f"exit code {code}: {said[-3000:]}"
        return said

    def said(self, name):
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", (self.play.scratch.path / f"{name}.out").read_text())


def batch(flink, check):
    with check(f"docs/{PAGE}: tables of files in batch mode"):
        said = flink.run("batch", "".join(blocks(PAGE, "sql")))
        rows = re.findall(r"^.*?([+|][-+| \w]*[+|])$", said, re.MULTILINE)
        equal("\n".join(rows) + "\n", blocks(PAGE, "text")[0], "the table")


def checkpoints(flink, check, play, node):
    cv = Cv(play.programs, node)

    def numbers(name):
        return [int(number) for number in re.findall(r"\+I\[([0-9]+)\]", flink.said(name))]

    def checkpoint():
        """The last one that is complete."""
        # It may not be there yet, and old ones go while they are listed.
        entries = [json.loads(line) for line in cv.run("--json", "ls", "-R", PLACE)[1].splitlines()]
        listed = "\n".join(entry["path"] for entry in entries if entry["size_bytes"])
        found = re.findall(rf"^{PLACE}/(\w+/chk-([0-9]+))/_metadata$", listed, re.MULTILINE)
        return max(found, key=lambda one: int(one[1]), default=(None,))[0]

    with check("a stream whose process is killed goes on from its last checkpoint, without gap and without repetition"):
        first = flink.start("first", STREAM + RUN)
        # Some numbers are in a checkpoint, and some are not there yet.
        until(lambda: first.poll() is not None or (checkpoint() and len(numbers("first")) > 10), "a checkpoint", 120)
        holds(first.poll() is None, f"it ended before it was killed: {flink.said('first')[-2000:]}")
        first.kill()
        first.wait()
        last = checkpoint()
        flink.run("second", f"{STREAM}SET 'execution.savepoint.path' = 'cv://cluster{PLACE}/{last}';\n{RUN}")
        again = numbers("second")
        equal(again, list(range(again[0], ROWS + 1)), "the numbers of the second run")
        seen = numbers("first")
        holds(1 < again[0] <= seen[-1] + 1, f"it went on with {again[0]}, and {seen[-1]} was the last number seen before")
