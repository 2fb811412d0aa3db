"""The one loop that feeds Dask and stores what comes back, as it comes.

No more than one chunk per thread is out at a time: what lies on a dying worker is then what it was
running, so that Dask blames no task that was merely waiting, and the driver's memory does not grow
with the grid. Short tasks travel in chunks of a quarter of a second or more.
"""

import itertools
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from krratio.errors import ClusterError, KrratioError
from krratio.pipeline.sweeping.chunk import abandon, now, run_chunk
from krratio.pipeline.sweeping.cluster import threads
from krratio.pipeline.sweeping.sandbox import ATTEMPTS
from krratio.pipeline.sweeping.task import Limits, Outcome, Task

__all__ = ["Engine"]

CHUNK_SECONDS = 0.25
"""What a chunk should take: the few milliseconds that it costs are then a few per cent."""

PER_WORKER = 0.005
"""Seconds that a chunk takes longer for each worker: with many, the driver is what is busy."""

MOST = 200  # tasks in a chunk
FRESH = 1.0  # seconds for which the number of threads is believed
GATHER = 1.0
"""Seconds for a result to travel; twice as long each time that it did not come.

A worker that dies with a result that nobody has fetched yet is called for longer than that by
Dask, which computes the result again only for whoever asks once more."""

GLANCE = 0.2  # seconds between two looks at the workers and the clock
IDLE = 30.0  # seconds without a worker until that is said

Ended = list[tuple[Task, Outcome]]


@dataclass
class _Flight:
    """A chunk that is out."""

    future: Any
    tasks: tuple[Task, ...]
    began: float = field(default_factory=time.monotonic)
    patience: float = GATHER


class Engine:
    """Runs tasks on the workers of one client.

    Parameters
    ----------
    client
        Of Dask.
    limits
        For each task.
    request
        What a worker is told about a task; see `child.perform`.
    say
        Called with a line for the user.
    """

    def __init__(
        self,
        client: Any,
        limits: Limits,
        request: Callable[[Task], Mapping[str, Any]],
        say: Callable[[str], None],
    ) -> None:
        self._client, self._limits, self._request, self._say = client, limits, request, say
        self._id = uuid.uuid4().hex
        self._flying: list[_Flight] = []
        self._back: deque[tuple[Task, ...]] = deque()  # to be sent again
        self._each = CHUNK_SECONDS  # seconds of a task, estimated
        self._deaths: Counter[str] = Counter()  # of workers, by the key of what they ran
        self._numbers = itertools.count()
        self._something_is_back = threading.Event()
        self._capacity, self._asked = 0, -FRESH
        self._idle_since = time.monotonic()

    def run(self, waiting: Iterator[Task], is_stopped: Callable[[], bool]) -> Iterator[Ended]:
        """Yield what has ended, in no order; an empty list now and then, while nothing does.

        It ends when nothing waits any more, or soon after `is_stopped`: then what is running is
        abandoned.

        Raises
        ------
        ClusterError
            If the scheduler is gone, or the workers run other code.
        """
        try:
            while not is_stopped():
                self._something_is_back.clear()
                ended = self._land()
                self._fill(waiting)  # before the results are stored: workers do not wait for that
                yield ended
                if not self._flying and self._capacity:
                    return
                self._something_is_back.wait(GLANCE)
            yield self._land()
        except ClusterError:
            self._flying = []  # nobody is there to be told
            raise
        finally:
            self._abandon()

    def _fill(self, waiting: Iterator[Task]) -> None:
        """Send a chunk to every free thread."""
        while len(self._flying) < self._threads():
            tasks = self._back.popleft() if self._back else self._next(waiting)
            if not tasks:
                return
            future = self._submit(tasks)
            future.add_done_callback(lambda _future: self._something_is_back.set())
            self._flying.append(_Flight(future, tasks))

    def _next(self, waiting: Iterator[Task]) -> tuple[Task, ...]:
        size = max(1, min(MOST, int(self._chunk_seconds / max(self._each, 1e-9))))
        return tuple(itertools.islice(waiting, size))

    def _submit(self, tasks: Sequence[Task]) -> Any:
        requests = [self._request(task) for task in tasks]
        key = f"krratio-{self._id}-{next(self._numbers)}"
        return self._client.submit(
            run_chunk, self._id, requests, self._limits, self._chunk_seconds, key=key, pure=False
        )

    @property
    def _chunk_seconds(self) -> float:
        return max(CHUNK_SECONDS, PER_WORKER * self._capacity)

    def _threads(self) -> int:
        now = time.monotonic()
        if now - self._asked > FRESH:
            with _scheduler_is_there():
                self._capacity = threads(self._client)
            self._asked = now
        if self._capacity:
            self._idle_since = now
        elif now - self._idle_since > IDLE:
            self._say("waiting for a worker: there is none")
            self._idle_since = now
        return self._capacity

    def _land(self) -> Ended:
        """Take in the chunks that are back."""
        ended: Ended = []
        still = []
        for flight in self._flying:
            if flight.future.done() and (found := self._outcomes(flight)) is not None:
                ended += found
                flight.future.release()
            else:
                still.append(flight)
        self._flying = still
        return ended

    def _outcomes(self, flight: _Flight) -> Ended | None:
        """Return what became of a chunk; None if its result is to be asked for once more."""
        from distributed.scheduler import KilledWorker

        try:
            with _scheduler_is_there():
                answers = flight.future.result(timeout=flight.patience)
        except TimeoutError:
            flight.patience *= 2
            return None
        except KilledWorker as error:
            return self._killed(flight, error)
        except KrratioError:
            raise
        except Exception as error:
            raise ClusterError(
                f"a worker cannot run tasks ({type(error).__name__}: {error}); it needs the same "
                "environment and the same code as this process"
            ) from error
        if answers:
            took = (time.monotonic() - flight.began) / len(answers)
            self._each += 0.5 * (took - self._each)
        if len(answers) < len(flight.tasks):
            self._back.append(flight.tasks[len(answers) :])
        pairs = zip(flight.tasks, answers, strict=False)
        return [(task, self._outcome(task, answer)) for task, answer in pairs]

    def _outcome(self, task: Task, answer: Mapping[str, Any]) -> Outcome:
        if "code" in answer:
            raise ClusterError(
                f"{task} met other code on a worker: {answer['code'][:12]} there, "
                f"{task.code[:12]} here; give both the same code, then go on with --resume"
            )
        return Outcome(
            task.key,
            tuple(answer["rows"]) if "rows" in answer else None,
            answer.get("error"),
            answer["attempts"],
            answer["seconds"],
            answer["finished"],
            answer["where"],
        )

    def _killed(self, flight: _Flight, error: Any) -> Ended:
        """Send what a dead worker was running again; blame a task that is there time and again."""
        self._asked = -FRESH  # there is a thread less: nothing must wait behind another task
        if len(flight.tasks) > 1:
            self._back.extend((task,) for task in flight.tasks)
            return []
        (task,) = flight.tasks
        self._deaths[task.key] += int(error.allowed_failures) + 1
        died = self._deaths[task.key]
        if died < ATTEMPTS:
            self._back.append((task,))
            return []
        reason = f"its worker died {died} times while it ran"
        seconds = time.monotonic() - flight.began
        return [(task, Outcome(task.key, None, reason, died, seconds, now(), {}))]

    def _abandon(self) -> None:
        """Let go of what is out; workers that are not ours stop running it."""
        futures = [flight.future for flight in self._flying]
        if not futures:
            return
        self._flying = []
        with suppress(OSError, TimeoutError, CancelledError, RuntimeError):
            self._client.cancel(futures, force=True)
            self._client.run(abandon, self._id, on_error="ignore", wait=False)


@contextmanager
def _scheduler_is_there() -> Iterator[None]:
    """Turn what Dask raises once its scheduler is gone into one error."""
    try:
        yield
    except TimeoutError:  # an OSError too, but one that says nothing of the scheduler
        raise
    except (CancelledError, OSError) as error:
        raise ClusterError(
            f"the scheduler is gone ({type(error).__name__}); what had ended is stored: start it "
            "again, then go on with --resume"
        ) from None
