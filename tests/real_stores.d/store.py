"""What every store of this suite has: a server, and a client that has nothing to do with Curvine's."""

from machines import free_port
from report import until


class Store:
    """One server, on a port that stays. What is mounted is below the bucket `BUCKET`."""

    name = scheme = ""
    BUCKET = "curvine-data"
    # What is not asked of it, and why; docs/stores.md has the reason, word for word.
    without = {}
    # Of a file's attributes, those that are kept with its object.
    kept = ("mode", "owner", "time", "note")
    # What is asked of it alone.
    own_claims = ()
    # The words with which wrong credentials are refused.
    denied = "the store does not know the credentials"
    # What may never be printed.
    secrets = ()
    # Those with which a bucket that is not there is named, and whether a mount with --write makes it.
    missing, is_made = "no such bucket or container", False

    def __init__(self, scratch):
        self.scratch = scratch
        host, self.port = self.place()
        self.endpoint = f"http://{host}:{self.port}"
        self.data = scratch.path / f"{self.name}-data"
        self.data.mkdir()
        self.process = None

    def place(self):
        """A loopback address and a port."""
        return "127.0.0.1", free_port()

    def start(self):
        """Until it answers."""
        self.process = self.launch()
        until(self.is_up, f"{self.name} answers at {self.endpoint}", 120)

    def is_up(self):
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}; see its log"
        return self.answers()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def launch(self):
        raise NotImplementedError

    def answers(self):
        raise NotImplementedError

    def uri(self, prefix, bucket=BUCKET):
        return f"{self.scheme}://{bucket}/{prefix}"

    def options(self, **changed):
        """As arguments of `cv mount`."""
        options = {**self.own_options(), **changed}
        return [word for name, value in options.items() if value is not None for word in ("-o", f"{name}={value}")]

    def own_options(self):
        raise NotImplementedError

    def wrong(self):
        """Options with credentials that are not good."""
        raise NotImplementedError

    def odd_names(self, names):
        """Those of these names that the store itself can have."""
        return names

    def make_bucket(self):
        raise NotImplementedError

    def put(self, key, content):
        raise NotImplementedError

    def get(self, key):
        raise NotImplementedError

    def delete(self, key):
        raise NotImplementedError

    def keys(self, prefix):
        """The objects that begin with this, sorted, without the markers of directories."""
        raise NotImplementedError
