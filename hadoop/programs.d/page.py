"""The commands of a page of the documentation, as they stand there."""

import os
import re
import subprocess

import tools
from machines import clean_environment
from session import blocks, configuration, here

# A command that brings all it needs is given no configuration.
ALONE = "--jars"


def commands(page):
    """Each block of commands, with what the page says that they say."""
    text = (tools.PAGES / page).read_text()
    found = re.findall(r"^```sh\n(.*?)^```\n```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == len(blocks(page, "sh")), f"docs/{page} has commands without what they say"
    return found


def follow(page, play, node):
    place = play.scratch.path / "page"
    empty = place / "no-configuration"
    empty.mkdir(parents=True)
    (place / "words.py").write_text(blocks(page, "python")[0])
    defaults = configuration(play.scratch, play.jar, node.master)
    (empty / "log4j2.properties").write_text((defaults / "log4j2.properties").read_text())
    for block, says in commands(page):
        command = here(block, play.jar, node.master)
        with play.check(f"docs/{page}: {block.split(chr(10))[0]}"):
            environment = clean_environment(
                PATH=f"{tools.VENV}/bin:{play.programs}:{os.environ['PATH']}", SPARK_LOCAL_IP="127.0.0.1",
                SPARK_CONF_DIR=str(empty if ALONE in command else defaults),
            )
            shell = ["bash", "-euo", "pipefail", "-c", command]
            done = subprocess.run(shell, cwd=place, env=environment, text=True, capture_output=True, timeout=300)
            assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-3000:]}"
            assert done.stdout == says, f"it says {done.stdout!r}, and the page {says!r}\n{done.stderr[-2000:]}"
