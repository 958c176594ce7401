"""Runs the `tidegate` program as people do: a process, a free port, a signal to end it."""

import functools
import json
import os
import queue
import signal
import subprocess
import threading
import urllib.request
from pathlib import Path

# How long a program may take to start or to end. Only a broken program takes that long.
PATIENCE_S = 30

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / os.environ.get("TIDEGATE", "target/debug/tidegate")


class Program:
    """One running `tidegate …`. Its address is the one that it prints."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.arguments = arguments
        self.output: list[str] = []
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [str(BINARY), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.url = self._wait_for_address("listening on http://")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            self.lines.put(line)
        self.lines.put(None)

    def _wait_for_address(self, start: str) -> str:
        while True:
            try:
                line = self.lines.get(timeout=PATIENCE_S)
            except queue.Empty:
                line = None
            if line is None:
                self.process.kill()
                raise AssertionError(f"{self} printed no address:\n{''.join(self.output)}")
            if line.startswith(start):
                return line.split()[2].rstrip("/")

    @functools.cached_property
    def admin(self) -> str:
        """The address of a gateway's admin listener."""
        return self._wait_for_address("admin on http://")

    def status(self) -> dict:
        """What a gateway's status page says."""
        with urllib.request.urlopen(self.admin + "/status", timeout=PATIENCE_S) as response:
            return json.load(response)

    def requests(self) -> int:
        """How many requests a gateway was sent, however they ended."""
        with urllib.request.urlopen(self.admin + "/metrics", timeout=PATIENCE_S) as response:
            lines = response.read().decode().splitlines()
        return sum(int(line.split()[-1]) for line in lines if line.startswith("tidegate_requests_total{"))

    def stop(self) -> None:
        """Asks the program to end as a service manager does, and holds it to ending well."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"{self} did not end after SIGTERM:\n{''.join(self.output)}") from None
        self.reader.join(timeout=PATIENCE_S)
        output = "".join(self.output)
        assert code == 0, f"{self} ended with {code}:\n{output}"
        assert "panicked" not in output, output

    def json(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE_S) as response:
            return json.load(response)

    def __str__(self) -> str:
        return "tidegate " + " ".join(self.arguments)
