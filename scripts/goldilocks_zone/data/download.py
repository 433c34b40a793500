"""Downloads from mirrors and package registries, with limits on time and size."""

import subprocess
import threading
import time
from pathlib import Path

import requests

CONNECT_SECONDS, WINDOW_SECONDS, PACKAGE_SECONDS = 5, 15, 180
# A mirror that delivers less in a window is abandoned.
WINDOW_BYTES = WINDOW_SECONDS * 32 * 1024


class SourceFailed(Exception):
    """Error: one source failed; the message has the reason."""


def download(url: str, limit: int) -> bytes:
    """Content of the file at `url`, which may have at most `limit` bytes.

    Raises SourceFailed if the file is longer, if there is no connection in 5 s, if fewer than 480 KiB arrive in 15 s,
    or if the transfer fails.
    """
    content, failure = bytearray(), None

    def receive():
        nonlocal content, failure
        try:
            with requests.get(url, timeout=(CONNECT_SECONDS, WINDOW_SECONDS), stream=True) as reply:
                if not reply.ok:
                    failure = f"answered {reply.status_code}"
                    return
                while piece := reply.raw.read1(1 << 16):
                    content += piece
                    if len(content) > limit:
                        failure = f"{Path(url).name} is longer than the official file"
                        return
        except requests.Timeout:
            failure = "no answer in time"
        except Exception:
            # An exception in a thread would only be printed.
            failure = "broke off" if content else "cannot be reached"

    # A thread can be abandoned, even during name resolution.
    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    while thread.is_alive():
        before, deadline = len(content), time.monotonic() + WINDOW_SECONDS
        while thread.is_alive() and time.monotonic() < deadline:
            thread.join(0.1)
        arrived = len(content) - before
        if thread.is_alive() and arrived < WINDOW_BYTES:
            raise SourceFailed(f"too slow: {arrived // 1024} KiB in {WINDOW_SECONDS} s")
    if failure:
        raise SourceFailed(failure)
    return bytes(content)


def run_tool(command: list[str], folder: Path) -> None:
    """Run a `command` in `folder`. Raises SourceFailed if its program is missing, fails or takes over 180 s."""
    name = Path(command[0]).name
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=PACKAGE_SECONDS)
    except FileNotFoundError:
        raise SourceFailed(f"this machine has no {name}") from None
    except subprocess.TimeoutExpired:
        raise SourceFailed(f"{name} took longer than {PACKAGE_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise SourceFailed(f"{name} failed: {lines[-1]}") from None
