"""HDFS itself, a name node and a data node, by its own protocol and by WebHDFS. Without Kerberos it believes who a user says
to be. What looks at it beside Curvine speaks WebHDFS."""

from urllib.parse import quote

import hdfs_claims
import hdfs_pair
import requests
from hadoop import SMALL, configure, java
from machines import clean_environment, free_port
from store import Store

SECONDS = 30


class Server(Store):
    """A name node and a data node."""

    user = "curvine"
    # Others than this one may not even look.
    denied = "access was denied"
    # There are no buckets, only directories.
    missing, is_made = "nothing is there; check the prefix, or mount with --write to make it", True

    def __init__(self, scratch):
        super().__init__(scratch)
        self.java = java(self.data / "conf")
        self.api = f"{self.endpoint}/webhdfs/v1"
        self.rpc = free_port()
        self.data_node = None
        core = {"fs.defaultFS": f"hdfs://127.0.0.1:{self.rpc}", "hadoop.tmp.dir": self.data / "tmp"}
        configure(self.data / "conf", core, {
            "dfs.namenode.rpc-bind-host": "127.0.0.1",
            "dfs.namenode.http-address": f"127.0.0.1:{self.port}",
            "dfs.namenode.name.dir": self.data / "names",
            "dfs.datanode.data.dir": self.data / "blocks",
            "dfs.datanode.address": f"127.0.0.1:{free_port()}",
            "dfs.datanode.http.address": f"127.0.0.1:{free_port()}",
            "dfs.datanode.ipc.address": f"127.0.0.1:{free_port()}",
            "dfs.datanode.hostname": "127.0.0.1",
            **SMALL,
        })
        code = self.begin("namenode.NameNode", "-format", "-nonInteractive").wait()
        assert code == 0, f"{self.name} was not formatted, exit code {code}; see its log"

    def begin(self, server, *more, program=None):
        environment = clean_environment(HADOOP_USER_NAME=self.user)
        program = program or f"org.apache.hadoop.hdfs.server.{server}"
        log = f"{self.name}-{program.rsplit('.', 1)[1]}.log"
        return self.scratch.start([*self.java, program, *more], log, env=environment)

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

    def own_options(self):
        return {"user_name": self.user}

    def wrong(self):
        return self.options(user_name="somebody")

    def admin(self, *words):
        """What `hdfs dfsadmin` does."""
        code = self.begin("", *words, program="org.apache.hadoop.hdfs.tools.DFSAdmin").wait()
        assert code == 0, f"dfsadmin {' '.join(words)}: exit code {code}; see its log"

    def status(self, key):
        """What HDFS knows of a file."""
        return self.ask("GET", f"/{self.BUCKET}/{key}", "GETFILESTATUS").json()["FileStatus"]

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

    def append(self, key, content):
        """Whether HDFS has written this behind a file: not while it makes up its mind about an earlier end of it."""
        url = f"{self.api}/{self.BUCKET}/{quote(key)}?op=APPEND&noredirect=true&user.name={self.user}"
        where = requests.post(url, timeout=SECONDS)
        written = where.ok and requests.post(where.json()["Location"], data=content, timeout=SECONDS)
        return bool(written and written.ok)

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


class WebHdfs(Server):
    name = scheme = "webhdfs"
    without = {"attributes": "`webhdfs` keeps no attributes of files"}

    def uri(self, prefix, bucket=Store.BUCKET):
        return f"webhdfs://127.0.0.1:{self.port}/{bucket}/{prefix}"


class Hdfs(Server):
    """As `hdfs://` has it: by the name node's RPC."""

    name = scheme = "hdfs"
    own_claims = (*hdfs_claims.IN_ORDER, hdfs_pair.several_name_nodes)
    # Of a file's attributes, it keeps these.
    kept = ("mode", "owner")

    def uri(self, prefix, bucket=Store.BUCKET):
        return f"hdfs://127.0.0.1:{self.rpc}/{bucket}/{prefix}"
