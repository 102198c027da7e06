"""What happens, told to people and programs: every log line of this library is written here, and every event told."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Container, Sequence

from .. import events
from ..errors import EndpointError, EtcdError
from .curl import curl_line
from .request import Request
from .tally import Tally

OnEvent = Callable[[events.Event], None]

logger = logging.getLogger("aioetcd2")
logger.addHandler(logging.NullHandler())

curl_logger = logging.getLogger("aioetcd2.curl")
shows_curl = curl_logger.isEnabledFor
"""Whether anybody wants to see curl lines at a level; asked before each request."""

DEBUG = logging.DEBUG

_handler: logging.Handler | None = None


def enable_curl_debug() -> None:
    """Print the equivalent curl command of every request to stderr.

    The same lines go to the logger `aioetcd2.curl` at DEBUG; this sets its level and adds a handler. Passwords are
    shown as `***`: in the command's `-u user:***`, and in place of a body that holds one.
    """
    global _handler
    if _handler is None:
        _handler = logging.StreamHandler(sys.stderr)
        _handler.setFormatter(logging.Formatter("%(message)s"))
        curl_logger.addHandler(_handler)
    curl_logger.setLevel(logging.DEBUG)


def disable_curl_debug() -> None:
    """Undo `enable_curl_debug()`."""
    global _handler
    if _handler is not None:
        curl_logger.removeHandler(_handler)
        _handler = None
    curl_logger.setLevel(logging.NOTSET)


def one_line(error: BaseException) -> str:
    """An error as it goes into a log."""
    return "; ".join(filter(None, map(str.strip, str(error).splitlines())))


class Reporter:
    """Tells what happens to one client: one line for each change, never one for what goes well.

    Args:
        on_event: The caller's own; called with each event. What it raises is logged once, and harms nothing.

    Attributes:
        failing: The endpoints that did not answer the last request as they should.
        tally: How often things have happened.
    """

    def __init__(self, on_event: OnEvent | None = None) -> None:
        self.failing: set[str] = set()
        self.tally = Tally()
        self._discovery_fails = False
        self._on_event = on_event
        self._has_complained = False

    def sends(self, endpoint: str, request: Request, username: str | None) -> None:
        """A request goes to an endpoint; told only where `shows_curl(DEBUG)`."""
        curl_logger.debug("%s", curl_line(endpoint, request, username))

    def endpoint_failed(self, request: Request, error: EndpointError) -> None:
        """An endpoint did not answer a request as it should: a change where it did before, a try where it did not."""
        level = self._level_of_failure(error)
        logger.log(level, "%s failed at %s [%s]", request, one_line(error), type(error).__name__)

    def _level_of_failure(self, error: EndpointError) -> int:
        if error.endpoint in self.failing:
            return logging.DEBUG
        self.failing.add(error.endpoint)
        self._tell(events.EndpointFailed, error, endpoint=error.endpoint)
        return logging.INFO

    def endpoint_recovered(self, endpoint: str) -> None:
        """An endpoint that failed answers."""
        self.failing.discard(endpoint)
        self._discovery_fails = False
        logger.info("%s answers again", endpoint)
        self._tell(events.EndpointRecovered, endpoint=endpoint)

    def pinned(self, endpoint: str, because_of_a_failure: bool) -> None:
        """Calls begin at another endpoint from now on."""
        self.tally.failovers += because_of_a_failure
        self._tell(events.Pinned, endpoint=endpoint)

    def write_is_repeated(self, request: Request, endpoint: str) -> None:
        """A write whose fate at an endpoint is unknown goes on to the next one."""
        self._tell(events.WriteRepeated, str(request), endpoint=endpoint)

    def connector_is_small(self, words: str) -> None:
        """The caller's connector has not enough connections."""
        logger.warning("calls may find no free connection: %s", words)

    def redirects(self, before: str, endpoint: str, target: str) -> None:
        """An endpoint sends a request elsewhere."""
        logger.info("%s redirects to %s%s", before, endpoint, target)

    def discovery_failed(self, why: BaseException | str) -> None:
        """Every endpoint has failed, and no others could be found: a change where they were, a try where not."""
        level = logging.DEBUG if self._discovery_fails else logging.WARNING
        self._discovery_fails = True
        words = one_line(why) if isinstance(why, BaseException) else why
        logger.log(level, "every endpoint has failed, and so has the search for others: %s", words)

    def discovered(self, endpoints: Sequence[str]) -> None:
        """Every endpoint has failed, and there are others now."""
        self._discovery_fails = False
        logger.info("every endpoint has failed; found %s", ", ".join(endpoints))
        self._tell(events.EndpointsChanged, tuple(endpoints))

    def endpoints_changed(self, endpoints: Sequence[str]) -> None:
        """There are other endpoints now, as a sync found, or as the caller said."""
        logger.info("endpoints are now %s", ", ".join(endpoints))
        self._tell(events.EndpointsChanged, tuple(endpoints))

    def sync_failed(self, interval: float, error: BaseException) -> None:
        """A sync in the background failed."""
        logger.warning("sync failed, next try in %s s: %s", interval, one_line(error))

    def leader_unknown(self, error: BaseException) -> None:
        """A sync found no leader to pin."""
        logger.info("no leader to pin: %s", one_line(error))

    def answer_was_older(self, request: Request, index: int, high_water_mark: int) -> None:
        """An answer is older than what this client has seen."""
        logger.info("an answer had index %d after %d; asking again with quorum: %s", index, high_water_mark, request)

    def cluster_life_ended(self, cluster: str, index: int, high_water_mark: int) -> None:
        """The store of the cluster has begun anew."""
        logger.warning(
            "cluster %s has begun anew: it is at index %d, and was at %d; watches report lost events",
            cluster,
            index,
            high_water_mark,
        )
        self._tell(events.ClusterLost, cluster)

    def cluster_forgotten(self, cluster: str) -> None:
        """The caller goes on with another cluster, or with a rebuilt one."""
        logger.info("cluster %s is forgotten; the next to answer is the one", cluster or "(none has answered)")
        self._tell(events.ClusterLost, cluster)

    def endpoint_buffers(self, endpoint: str) -> None:
        """An endpoint holds back what it should hand on at once."""
        logger.info("%s holds back what a wait brings, as a buffering proxy does; using long polls", endpoint)

    def watches_leave(self, number: int, problem: EndpointError) -> None:
        """Watches go from an endpoint to others; in an outage, one that tries goes from one that is known to fail."""
        level = self._probe_failed(problem)
        logger.log(level, "%d watches leave %s", number, one_line(problem))

    def calls_leave(self, problem: EndpointError) -> None:
        """Calls go from an endpoint to others."""
        level = self._probe_failed(problem)
        logger.log(level, "calls leave %s", one_line(problem))

    def _probe_failed(self, problem: EndpointError) -> int:
        self._tell(events.ProbeFailed, problem, endpoint=problem.endpoint)
        return self._level_of_failure(problem)

    def forget_others(self, endpoints: Container[str]) -> None:
        """Keep nothing of other endpoints than these."""
        self.failing = {endpoint for endpoint in self.failing if endpoint in endpoints}

    def watches_interrupted(self, key: str, error: EtcdError) -> None:
        """An outage of the watches begins."""
        logger.warning("watches are interrupted, and go on trying; that of %s: %s", key or "/", one_line(error))
        self._tell(events.WatchInterrupted, key or "/", error)

    def watches_resumed(self, key: str) -> None:
        """An outage of the watches is over."""
        logger.info("watches go on again, that of %s the first", key or "/")
        self._tell(events.WatchResumed, key or "/")

    def watch_resynchronized(self, key: str, index: int) -> None:
        """A watch goes on behind a gap."""
        self.tally.resyncs += 1
        logger.info("watch of %s lost events up to index %d, and goes on from there", key or "/", index)
        self._tell(events.Resynced, key or "/", index)

    def _tell(self, kind: Callable[..., events.Event], *about: object, endpoint: str = "") -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(kind(*about, endpoint=endpoint, at=time.monotonic()))
        except Exception:
            if not self._has_complained:
                self._has_complained = True
                logger.exception("on_event raised; it is called all the same, and what it raises is not told again")
