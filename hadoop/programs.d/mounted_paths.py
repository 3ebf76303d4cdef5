"""Paths of S3 as jobs have them already: what is mounted goes through Curvine, everything else to the class of Hadoop."""

import machines
import spark as claims
import tools
from cv import Cv
from report import equal, holds
from session import Files


class Moto(machines.Moto):
    """In a Python of its own: it needs much that nothing else here does."""

    def launch(self):
        python = tools.moto()
        return self.scratch.start([python, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.port], f"{self.name}.log")

    def keys_of_hadoop(self):
        """How Hadoop's own class finds the server."""
        keys = {"endpoint": self.endpoint, "access.key": self.key, "secret.key": self.secret, "path.style.access": "true",
                "connection.ssl.enabled": "false", "endpoint.region": "us-east-1"}
        return {f"spark.hadoop.fs.s3a.{name}": value for name, value in keys.items()}


def prepare(s3, cv):
    """Of the first bucket, only what is below `data/` is mounted."""
    for bucket in ("mounted", "other"):
        s3.client.create_bucket(Bucket=bucket)
        for number in range(3):
            s3.put(bucket, f"data/in/part-{number}.csv", "".join(f"{10 * number + row},x\n" for row in range(10)))
    s3.put("mounted", "elsewhere/part.csv", "7,x\n")
    cv("mount", "s3://mounted/data", "/lake", "--write", *s3.options())


def paths(session, play, s3, cv):
    check, schema = play.check, "id int, text string"

    def kind(path):
        files = Files(session, path)
        return files.fs.getFileStatus(files.path(path)).getClass().getSimpleName()

    for path, served, rows in (
        ("s3a://mounted/data/in", "CurvineFileStatus", 30), ("s3a://other/data/in", "S3AFileStatus", 30),
        ("s3a://mounted/elsewhere", "S3AFileStatus", 1),
    ):
        with check(f"{path} is read, and its names are its own"):
            equal(kind(path), served, "who serves it")
            frame = session.read.schema(schema).csv(path)
            equal(frame.count(), rows, "rows")
            names = {row[0] for row in frame.selectExpr("input_file_name()").distinct().collect()}
            holds(all(name.startswith(f"{path}/part") for name in names), f"its files: {names}")
    for path, mounted in (("s3a://mounted/data/out", True), ("s3a://other/out", False)):
        with check(f"what is written to {path} is in the bucket"):
            for name in ("csv", "parquet"):
                claims.numbered(session, 100).repartition(2).write.format(name).save(f"{path}/{name}")
                equal(session.read.format(name).load(f"{path}/{name}").count(), 100, "rows")
            if mounted:
                cv("persist", "/lake/out")
            bucket, prefix = path[len("s3a://"):].split("/", 1)
            keys = s3.keys(bucket, f"{prefix}/")
            files = sorted(f"{prefix}/{name}" for name in Files(session, path).below(path))
            equal([key for key in keys if not key.endswith("/")], files, "keys")
            equal(len([key for key in keys if "/part-" in key]), 4, f"files of tasks in {keys}")
    claims.streaming(session, "s3a://mounted/data/streams", check)
    with check("the checkpoint of that stream went through Curvine"):
        holds(b"offsets" in cv("ls", "/lake/streams/streaming/checkpoint"), "it is not there")
    with check("what is renamed out of what is mounted is refused, with the reason"):
        files = Files(session, "s3a://mounted/data/in")
        try:
            files.fs.rename(files.path("s3a://mounted/data/in"), files.path("s3a://mounted/elsewhere/in"))
            said = "nothing"
        except Exception as error:  # noqa: BLE001: its kind is py4j's own
            said = str(error)
        holds("only one of them is mounted in Curvine; copy it instead" in said, f"it says: {said}")


def start(play, node):
    s3, cv = Moto(play.scratch, "moto"), Cv(play.programs, node)
    prepare(s3, cv)
    return s3, cv
