"""The jobs of a Ray cluster, through its job port: submitted, waited for, followed, stopped.

What a job of ours has to say stands in its log as JSON lines (search/screen.py); everything else in there is Ray's, or
a traceback. Not for: what is submitted (package.py), or how the port is reached (reach.py).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfd_tune.cluster.package import ENTRYPOINT, Package
from dfd_tune.cluster.tunnel import token_here
from dfd_tune.errors import UserError, cause_of
from dfd_tune.search.screen import told_in

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

SEARCH, STORE, VERB = "dfd_tune_search", "dfd_tune_store", "dfd_tune_verb"
"""Keys of a job's metadata: which search it is of, in which store, and what it does."""
STOP_SECONDS = 30
"""How long Ray waits between SIGTERM and SIGKILL of a job. By default it is 3 s; books take up to 8 s to be closed, and
checkpoints of what runs longer."""
AGENT_SECONDS = 60.0
"""How long a head that has just started may take until it takes jobs."""
SILENCE_SECONDS = 120.0
"""A cluster that does not answer for so long is given up on."""
POLL_SECONDS = 0.5
RAW_LINES = 40
"""So many lines of a job's log are kept that are none of ours, to be shown if it fails."""

_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "urllib3",
)
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass
class Told:
    """What a job said, apart from what is drawn."""

    status: str = "PENDING"
    """Ray's: SUCCEEDED, FAILED, STOPPED."""
    values: dict[str, Any] = field(default_factory=dict)
    """What it told last of each thing that is not drawn, as `refused`, `result`."""
    raw: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=RAW_LINES))
    """The last lines that were not ours."""

    def value(self, what: str) -> Any:
        """What a job that ended well told under that name.

        Raises:
            UserError: it refused.
            RuntimeError: it failed, with the end of its log.
        """
        if "refused" in self.values:
            raise UserError(*self.values["refused"])
        if self.status != "SUCCEEDED" or what not in self.values:
            raise RuntimeError(f"The job on the cluster ended as {self.status}:\n" + "\n".join(self.raw))
        return self.values[what]


class Jobs:
    """The jobs of one cluster. Make it with `connect`.

    Args:
        client: connected.
        address: of the job port, for messages.
        clock: seconds.
    """

    def __init__(self, client: JobSubmissionClient, address: str, clock: Callable[[], float] = time.monotonic):
        self._client = client
        self.address = address
        self._clock = clock

    def submit(self, package: Package, metadata: dict[str, str]) -> str:
        """Submit a job; returns its id.

        Raises:
            UserError: the cluster refuses, or can't be reached.
        """
        environment = {
            "working_dir": str(package.order),
            "py_modules": [str(module) for module in package.modules],
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
        }
        deadline = self._clock() + AGENT_SECONDS
        while True:
            try:
                with self._as_sentences():
                    return str(
                        self._client.submit_job(entrypoint=ENTRYPOINT, runtime_env=environment, metadata=metadata)
                    )
            except UserError as error:
                # The port of a cluster that has just started opens before there is somebody to start a job.
                if "No available agent" not in str(error) or self._clock() > deadline:
                    raise
                time.sleep(1)

    def of_search(self, name: str) -> list[JobDetails]:
        """The launches of a search that this cluster knows, the latest one last."""
        return [job for job in self.launches() if (job.metadata or {}).get(SEARCH) == name]

    def launches(self) -> list[JobDetails]:
        """Those of all searches, in their order."""
        with self._as_sentences():
            jobs = self._client.list_jobs()
        ours = [job for job in jobs if (job.metadata or {}).get(VERB) == "launch"]
        return sorted(ours, key=lambda job: job.start_time or 0)

    def status(self, job: str) -> str:
        """Ray's word for how a job stands."""
        with self._as_sentences():
            return str(self._client.get_job_status(job).value)

    def stop(self, job: str) -> None:
        """Have a job ended: SIGTERM, and SIGKILL after `STOP_SECONDS`."""
        with self._as_sentences():
            self._client.stop_job(job)

    def wait(
        self,
        job: str,
        on: Callable[[str, Any], bool] = lambda what, value: False,
        *,
        raw: Callable[[str], None] = lambda line: None,
    ) -> Told:
        """Follow a job to its end.

        Args:
            job: its id.
            on: takes what it tells, and says whether that is dealt with; what is not stands in what is returned.
            raw: takes the lines that are none of ours.

        Raises:
            UserError: the cluster no longer answers.
        """
        told = Told()
        for line in self._lines(job):
            found = told_in(line)
            if found is None:
                told.raw.append(line)
                raw(line)
            elif not on(*found):
                told.values[found[0]] = found[1]
        told.status = self.status(job)
        return told

    def until(self, job: str, what: str) -> Told:
        """Follow a job until it tells `what`, or to its end.

        Raises:
            UserError: as `wait`.
        """
        told = Told()
        lines = self._lines(job)
        for line in lines:
            found = told_in(line)
            if found is None:
                told.raw.append(line)
                continue
            told.values[found[0]] = found[1]
            if found[0] == what:
                lines.close()
                told.status = "SUCCEEDED"
                return told
        told.status = self.status(job)
        return told

    def log(self, job: str) -> str:
        """All of a job's log so far."""
        with self._as_sentences():
            return str(self._client.get_job_logs(job))

    def download(self, node: str, name: str, target: Path) -> None:
        """Bring a file from the folder of Ray's logs on a node, of whatever content.

        Args:
            node: Ray's id of it.
            name: of the file.
            target: where to put it.
        """
        import requests

        headers = getattr(self._client, "_headers", {})
        query = {"node_id": node, "filename": name, "lines": "-1", "timeout": "86400"}
        with self._as_sentences():
            answer = requests.get(
                f"{self.address}/api/v0/logs/file", params=query, headers=headers, stream=True, timeout=SILENCE_SECONDS
            )
            answer.raise_for_status()
            with target.open("wb") as file:
                for part in answer.iter_content(1 << 20):
                    file.write(part)

    def _lines(self, job: str) -> Generator[str]:
        """The lines of a job's log from its first to its last, as they come."""
        parts: queue.Queue[str | BaseException | None] = queue.Queue()
        over = threading.Event()
        thread = threading.Thread(
            target=lambda: asyncio.run(self._tail(job, parts, over)), name=f"log of {job}", daemon=True
        )
        thread.start()
        rest = ""
        try:
            while True:
                try:
                    part = parts.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if part is None:
                    break
                if isinstance(part, BaseException):
                    raise part
                *lines, rest = (rest + part).split("\n")
                yield from lines
            if rest:
                yield rest
        finally:
            over.set()

    async def _tail(self, job: str, parts: queue.Queue[str | BaseException | None], over: threading.Event) -> None:
        """Put a job's log into a queue, part by part; begins anew where the connection is lost, at what comes next."""
        seen, heard = 0, self._clock()
        try:
            while not over.is_set():
                skip = seen
                with contextlib.suppress(Exception):
                    async for part in self._client.tail_job_logs(job):
                        if over.is_set():
                            return
                        heard = self._clock()
                        new = part[skip:]
                        skip -= min(skip, len(part))
                        seen += len(new)
                        if new:
                            parts.put(new)
                try:
                    status = self.status(job)
                    heard = self._clock()
                except UserError:
                    if self._clock() - heard > SILENCE_SECONDS:
                        raise
                    status = ""
                if status in ENDED:
                    parts.put(self.log(job)[seen:])
                    parts.put(None)
                    return
                await asyncio.sleep(POLL_SECONDS)
        except BaseException as error:
            parts.put(error)

    @contextlib.contextmanager
    def _as_sentences(self) -> Iterator[None]:
        """What the job port's client raises, as sentences."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError:
            raise UserError(refused(self.address)) from None
        except (ConnectionError, requests.exceptions.RequestException) as error:
            raise UserError(f"The cluster at {self.address} does not answer ({cause_of(error)}).") from None
        except RuntimeError as error:
            text = " ".join(str(error).split())
            if "status code" not in text:
                raise
            raise UserError(f"The cluster at {self.address} refuses a request: {text[:300]}") from None


def connect(address: str) -> Jobs:
    """Connect to a job port.

    Args:
        address: as http://HOST:8265.

    Raises:
        UserError: it is no such address, nobody or something else answers there, or the token is missing or wrong.
    """
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    address = address.rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise UserError(
            f"--address is '{address}', but must be the address of a cluster's job port, as http://HOST:8265."
        )
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        # A token that is here is offered whether or not this process is set to use it.
        token = token_here()
        headers = None if token is None else {"Authorization": f"Bearer {token}"}
        return Jobs(JobSubmissionClient(address, headers=headers), address)
    except AuthenticationError:
        raise UserError(refused(address)) from None
    except (requests.exceptions.HTTPError, requests.exceptions.JSONDecodeError, RuntimeError, KeyError):
        raise UserError(
            f"Something answers at {address}, but it is not a Ray cluster's job port; give the address of its "
            "dashboard, as http://HOST:8265."
        ) from None
    except (ConnectionError, requests.exceptions.RequestException):
        raise UserError(
            f"Nobody answers at {address}; give the address of the cluster's dashboard, as http://HOST:8265, and see "
            "that its port can be reached from here (through a tunnel, say)."
        ) from None


def refused(address: str) -> str:
    """A sentence for a cluster whose token is missing or wrong here."""
    return (
        f"The cluster at {address} refuses this machine: its token is missing or wrong; "
        "put the cluster's token into ~/.ray/auth_token or RAY_AUTH_TOKEN."
    )
