"""HDFS itself, a name node and a data node, by WebHDFS. Without Kerberos it believes who a user says to be."""

import shutil
from urllib.parse import quote

import requests
import tools
from machines import clean_environment, free_port
from store import Store

SECONDS = 30
LOG = """log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %c: %m%n
"""


class Hdfs(Store):
    name, scheme = "hdfs", "webhdfs"
    user = "curvine"
    # Others than this one may not even look.
    denied = "access was denied"
    # There are no buckets, only directories.
    missing, is_made = "nothing is there; check the prefix, or mount with --write to make it", True
    without = {"attributes": "`webhdfs` keeps no attributes of files"}

    def __init__(self, scratch):
        super().__init__(scratch)
        java = shutil.which("java")
        # Its web server makes classes in ways that Java has closed since 17.
        opened = ["--add-opens", "java.base/java.lang=ALL-UNNAMED"]
        self.java = [java, *opened, "-Xmx512m", "-cp", f"{self.data}/conf:{tools.hadoop()}"]
        self.api = f"{self.endpoint}/webhdfs/v1"
        self.rpc = free_port()
        self.data_node = None
        # Its jars are without the pages that it shows to people, and it does not start where there is no place for them.
        for page in ("hdfs", "datanode"):
            (self.data / "conf" / "webapps" / page).mkdir(parents=True)
        (self.data / "conf" / "log4j.properties").write_text(LOG)
        self.configure("core-site.xml", {
            "fs.defaultFS": f"hdfs://127.0.0.1:{self.rpc}",
            "hadoop.tmp.dir": self.data / "tmp",
        })
        self.configure("hdfs-site.xml", {
            "dfs.namenode.rpc-bind-host": "127.0.0.1",
            "dfs.namenode.http-address": f"127.0.0.1:{self.port}",
            "dfs.namenode.name.dir": self.data / "names",
            "dfs.datanode.data.dir": self.data / "blocks",
            "dfs.datanode.address": f"127.0.0.1:{free_port()}",
            "dfs.datanode.http.address": f"127.0.0.1:{free_port()}",
            "dfs.datanode.ipc.address": f"127.0.0.1:{free_port()}",
            "dfs.datanode.hostname": "127.0.0.1",
            "dfs.replication": 1,
            "dfs.namenode.safemode.extension": 0,
            "dfs.datanode.du.reserved": 0,
        })
        code = self.begin("namenode.NameNode", "-format", "-nonInteractive").wait()
        assert code == 0, f"{self.name} was not formatted, exit code {code}; see its log"

    def configure(self, name, values):
        rows = [f"<property><name>{key}</name><value>{value}</value></property>" for key, value in values.items()]
        (self.data / "conf" / name).write_text(f"<configuration>{''.join(rows)}</configuration>\n")

    def begin(self, server, *more):
        environment = clean_environment(HADOOP_USER_NAME=self.user)
        command = [*self.java, f"org.apache.hadoop.hdfs.server.{server}", *more]
        return self.scratch.start(command, f"hdfs-{server}.log", env=environment)

    def launch(self):
        if self.data_node is None:
            self.data_node = self.begin("datanode.DataNode")
        return self.begin("namenode.NameNode")

    def answers(self):
        """Whether a file can be written: the data node is known, and safe mode is over."""
        try:
            self.put_at("/probe", b"probe")
            return True
        except requests.RequestException:
            return False

    def uri(self, prefix, bucket=Store.BUCKET):
        return f"webhdfs://127.0.0.1:{self.port}/{bucket}/{prefix}"

    def own_options(self):
        return {"user_name": self.user}

    def wrong(self):
        return self.options(user_name="somebody")

    def ask(self, method, path, op, **more):
        """What the name node says; where it names a data node, what that says."""
        url = f"{self.api}{quote(path)}?op={op}&user.name={self.user}"
        answer = requests.request(method, url, timeout=SECONDS, **more)
        answer.raise_for_status()
        return answer

    def put_at(self, path, content):
        where = self.ask("PUT", path, "CREATE&overwrite=true&noredirect=true").json()["Location"]
        requests.put(where, data=content, timeout=SECONDS).raise_for_status()

    def make_bucket(self):
        self.ask("PUT", f"/{self.BUCKET}", "MKDIRS&permission=700")

    def put(self, key, content):
        self.put_at(f"/{self.BUCKET}/{key}", content)

    def get(self, key):
        return self.ask("GET", f"/{self.BUCKET}/{key}", "OPEN").content

    def delete(self, key):
        self.ask("DELETE", f"/{self.BUCKET}/{key}", "DELETE")

    def keys(self, prefix):
        """All that is below. The prefix is a directory's."""
        found, directories = [], [prefix.rstrip("/")]
        while directories:
            directory = directories.pop()
            try:
                listed = self.ask("GET", f"/{self.BUCKET}/{directory}", "LISTSTATUS").json()
            except requests.HTTPError as error:
                if error.response.status_code == 404:
                    continue
                raise
            for status in listed["FileStatuses"]["FileStatus"]:
                path = f"{directory}/{status['pathSuffix']}"
                (directories if status["type"] == "DIRECTORY" else found).append(path)
        return sorted(found)

    def odd_names(self, names):
        return [name for name in names if ":" not in name]
