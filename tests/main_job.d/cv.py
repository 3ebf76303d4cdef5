"""`cv`, as it is typed."""

import json
import subprocess

from machines import clean_environment, dies_with_parent


class Cv:
    def __init__(self, programs, node):
        self.program, self.node = programs / "cv", node
        # Everything that was ever said, to look for secrets in it.
        self.said = []

    def start(self, *words, **options):
        command = [str(self.program), "--master", self.node.master, *map(str, words)]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(command, env=clean_environment(), preexec_fn=dies_with_parent, **options)

    def run(self, *words, stdin=None, timeout=600):
        """Exit code, output, errors."""
        process = self.start(*words, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(stdin or b"", timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"cv {' '.join(map(str, words))}: no end within {timeout} s") from None
        self.said.append(err)
        if len(out) < 1 << 20:
            self.said.append(out)
        return process.returncode, out, err.decode(errors="replace")

    def __call__(self, *words, **options):
        """The output of what must succeed."""
        code, out, err = self.run(*words, **options)
        assert code == 0, f"cv {' '.join(map(str, words))}: exit code {code}: {err.strip()}"
        return out

    def text(self, *words, **options):
        return self(*words, **options).decode()

    def json(self, *words, **options):
        """The objects that a command answers with."""
        return [json.loads(line) for line in self("--json", *words, **options).splitlines()]

    def mounts(self):
        """The mounts as they were made, without what is counted of them."""
        return [{name: value for name, value in mount.items() if name != "traffic"} for mount in self.json("mounts")]

    def refused(self, *words, code=None, says=(), **options):
        """What must fail: with this exit code, saying this, and in one line."""
        found, out, err = self.run(*words, **options)
        doing = f"cv {' '.join(map(str, words))}"
        assert found != 0, f"{doing}: succeeded, and should not"
        assert code is None or found == code, f"{doing}: exit code {found}, expected {code}: {err}"
        assert len(err.strip().splitlines()) == 1, f"{doing}: not one line: {err}"
        for text in [says] if isinstance(says, str) else says:
            assert text in err, f"{doing}: {text!r} is not in: {err}"
        return err
