"""The processes of the job: two S3 servers and a deployment of Curvine. Every one of them ends with this process, whatever happens."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from report import until

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def dies_with_parent():
    """In a child, before it becomes the program: not even kill -9 of this process leaves it behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def clean_environment(**more):
    """Nothing of the caller's own settings reaches what is tested."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CURVINE_", "AWS_", "RUST_LOG"))}
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **more}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Scratch:
    """A directory and the processes that work in it."""

    def __init__(self, parent, name):
        # As /proc/self/mounts has it.
        self.path = Path(parent).resolve() / f"run-{os.getpid()}-{name}"
        self.path.mkdir(parents=True)
        self.processes = []

    def start(self, command, log, **options):
        with open(self.path / log, "ab") as out:
            options.setdefault("stdout", out)
            options.setdefault("env", clean_environment())
            process = subprocess.Popen(
                [str(part) for part in command], stderr=out, stdin=subprocess.DEVNULL, preexec_fn=dies_with_parent, **options
            )
        self.processes.append(process)
        return process

    def mounts(self):
        points = [line.split()[1] for line in open("/proc/self/mounts")]
        return [point for point in points if point.startswith(f"{self.path}/")]

    def clean(self, keep):
        # A node that can still unmount does; what one that was killed left is taken away here.
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait()
        for point in self.mounts():
            subprocess.run(["umount", "-l", point], check=False)
        # Never delete through a mount.
        if keep or self.mounts():
            print(f"-- kept {self.path}")
        else:
            shutil.rmtree(self.path, ignore_errors=True)


class S3:
    """A server, and a client that has nothing to do with Curvine's."""

    key = "curvine-main-job"
    secret = "tOpSeCrEt-0f-the-main-job/+="

    def __init__(self, scratch, name):
        self.scratch, self.name = scratch, name
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.process = self.launch()
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"}, retries={"max_attempts": 2}, max_pool_connections=32, connect_timeout=5,
                request_checksum_calculation="when_required", response_checksum_validation="when_required",
            ),
        )
        until(self.answers, f"{name} answers at {self.endpoint}")

    def launch(self):
        raise NotImplementedError

    def answers(self):
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}; see its log"
        try:
            self.client.list_buckets()
            return True
        except (BotoCoreError, ClientError):
            return False

    def options(self, **changed):
        """As arguments of `cv mount`."""
        options = {"endpoint": self.endpoint, "access_key_id": self.key, "secret_access_key": self.secret, **changed}
        return [word for name, value in options.items() if value is not None for word in ("-o", f"{name}={value}")]

    def put(self, bucket, key, content):
        self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, bucket, key):
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def delete(self, bucket, key):
        self.client.delete_object(Bucket=bucket, Key=key)

    def uploads(self, bucket):
        """The keys and ids of uploads in parts that were begun and not ended."""
        listed = self.client.list_multipart_uploads(Bucket=bucket)
        return {(upload["Key"], upload["UploadId"]) for upload in listed.get("Uploads", [])}

    def keys(self, bucket, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))


class Moto(S3):
    """Like AWS in its paging and its conditional requests; believes every signature."""

    def launch(self):
        python = Path(os.sys.executable)
        log = f"{self.name}.log"
        return self.scratch.start([python, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.port], log)


class S3sFs(S3):
    """Checks signatures; lists no ETags, ignores If-Match, fails on the name of a directory."""

    def __init__(self, scratch, name, program):
        self.program = program
        super().__init__(scratch, name)

    def launch(self):
        root = self.scratch.path / "s3s-data"
        root.mkdir(exist_ok=True)
        credentials = ["--access-key", self.key, "--secret-key", self.secret]
        return self.scratch.start(
            [self.program, "--host", "127.0.0.1", "--port", self.port, *credentials, root], f"{self.name}.log"
        )


class Part:
    """One process of a deployment, on ports that stay."""

    def __init__(self, scratch, program, name, role, arguments, environment, mount_point=None):
        self.scratch, self.program, self.name, self.role = scratch, program, name, role
        self.log = scratch.path / f"{name}.log"
        self.data_dir = scratch.path / f"{name}-data"
        self.web = f"127.0.0.1:{free_port()}"
        self.mount_point = mount_point
        self.environment = environment
        self.arguments = ["--role", role, "--data-dir", self.data_dir, "--web", self.web, "--log-format", "json"]
        self.arguments += arguments + (["--mount-point", mount_point] if mount_point else [])
        self.process = None

    def begin(self):
        environment = clean_environment(**self.environment)
        command = [self.program, *self.arguments]
        self.process = self.scratch.start(command, self.log.name, stdout=subprocess.PIPE, env=environment)

    def ready(self):
        """Waits until it says that it serves; what it says."""
        # A node that hangs is killed: the line ends.
        alarm = threading.Timer(60, self.process.kill)
        alarm.start()
        line = self.process.stdout.readline()
        alarm.cancel()
        assert line, f"{self.name} ended with {self.process.wait()} and said nothing; see {self.log}"
        return json.loads(line)

    def start(self):
        self.begin()
        return self.ready()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self, number):
        """Sends a signal and waits; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


# How many masters, workers and mounts, each a process of its own; none for all in one process.
DEPLOYMENTS = {"one": None, "processes": (1, 1, 1), "group": (3, 2, 2)}
# Those that are tried unless others are named: what goes wrong between a few processes does between many.
USUAL = ("one", "group")


class Node:
    """A deployment of `curvine-node`: what one node does in one process, or several processes together."""

    def __init__(self, scratch, programs, shape=None, name="node", environment=None, mounted=False):
        self.scratch, self.name = scratch, name
        program, environment = programs / "curvine-node", environment or {}
        part = lambda *more, **options: Part(scratch, program, *more, environment=environment, **options)  # noqa: E731
        place = lambda number: scratch.path / f"{name}-mount-{number}" if mounted else None  # noqa: E731
        masters, workers, mounts = shape or (1, 1, 1)
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(masters)]
        self.addresses, self.master = addresses, ",".join(addresses)
        self.workers = workers
        # In the order in which they start; they stop in the other one.
        self.stages = []
        if shape is None:
            listen = ["--listen", self.master, "--worker-listen", f"127.0.0.1:{free_port()}"]
            self.stages.append([part(name, "all", listen, mount_point=place(1))])
        else:
            peers = ",".join(f"{number}={address}" for number, address in enumerate(addresses, 1))
            named = lambda number: ["--id", number, "--peers", peers] if masters > 1 else []  # noqa: E731
            to = ["--master", self.master]
            self.stages.append([
                part(f"{name}-master-{number}", "master", ["--listen", address, *named(number)])
                for number, address in enumerate(addresses, 1)
            ])
            self.stages.append([
                part(f"{name}-worker-{number}", "worker", [*to, "--listen", f"127.0.0.1:{free_port()}"])
                for number in range(1, workers + 1)
            ])
            if mounted:
                self.stages.append([
                    part(f"{name}-fuse-{number}", "fuse", to, mount_point=place(number)) for number in range(1, mounts + 1)
                ])
        self.parts = [part for stage in self.stages for part in stage]
        self.web = self.parts[0].web
        self.mount_points = [part.mount_point for part in self.parts if part.mount_point]
        self.mount_point = self.mount_points[0] if mounted else None
        # A group elects first, and several processes wait for each other.
        self.ready_ms_max = 4_000 if shape is None else 15_000

    def start(self):
        """Until everything serves; what the first process says, and how long all took."""
        said, took_ms = [], 0
        for stage in self.stages:
            for part in stage:
                part.begin()
            ready = [part.ready() for part in stage]
            said += ready
            took_ms += max(one["ready_ms"] for one in ready)
        return {**said[0], "ready_ms": took_ms}

    def kill(self):
        """All of it at once, as when the machine dies."""
        for part in self.parts:
            if part.process is not None:
                part.process.kill()
        for part in self.parts:
            if part.process is not None:
                part.process.wait()

    def stop(self, number=signal.SIGTERM):
        """As an operator does, one after the other; the worst exit code."""
        return max(part.end(number) for part in reversed(self.parts))

    def of(self, role):
        return [part for part in self.parts if part.role == role]
