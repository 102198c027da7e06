"""What happens, told to people: every log line of this library is written here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Container, Iterable

from ..errors import EndpointError
from .curl import curl_line
from .request import Request

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

    Attributes:
        failing: The endpoints that did not answer the last request as they should.
    """

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self._discovery_fails = False

    def sends(self, endpoint: str, request: Request, username: str | None) -> None:
        """A request goes to an endpoint; told only where `shows_curl(DEBUG)`."""
        curl_logger.debug("%s", curl_line(endpoint, request, username))

    def endpoint_failed(self, request: Request, error: EndpointError) -> None:
        """An endpoint did not answer a request as it should: a change where it did before, a try where it did not."""
        level = self._level_of_failure(error.endpoint)
        logger.log(level, "%s failed at %s [%s]", request, one_line(error), type(error).__name__)

    def _level_of_failure(self, endpoint: str) -> int:
        level = logging.DEBUG if endpoint in self.failing else logging.INFO
        self.failing.add(endpoint)
        return level

    def endpoint_recovered(self, endpoint: str) -> None:
        """An endpoint that failed answers."""
        self.failing.discard(endpoint)
        self._discovery_fails = False
        logger.info("%s answers again", endpoint)

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

    def discovered(self, endpoints: Iterable[str]) -> None:
        """Every endpoint has failed, and there are others now."""
        self._discovery_fails = False
        logger.info("every endpoint has failed; found %s", ", ".join(endpoints))

    def endpoints_changed(self, endpoints: Iterable[str]) -> None:
        """A sync found other endpoints."""
        logger.info("endpoints are now %s", ", ".join(endpoints))

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

    def endpoint_buffers(self, endpoint: str) -> None:
        """An endpoint holds back what it should hand on at once."""
        logger.info("%s holds back what a wait brings, as a buffering proxy does; using long polls", endpoint)

    def watches_leave(self, number: int, endpoint: str, problem: str) -> None:
        """Watches go from an endpoint to others; in an outage, one that tries goes from one that is known to fail."""
        logger.log(self._level_of_failure(endpoint), "%d watches leave %s: %s", number, endpoint, problem)

    def calls_leave(self, endpoint: str, problem: str) -> None:
        """Calls go from an endpoint to others."""
        logger.log(self._level_of_failure(endpoint), "calls leave %s: %s", endpoint, problem)

    def forget_others(self, endpoints: Container[str]) -> None:
        """Keep nothing of other endpoints than these."""
        self.failing = {endpoint for endpoint in self.failing if endpoint in endpoints}

    def watches_interrupted(self, key: str, error: BaseException) -> None:
        """An outage of the watches begins."""
        logger.warning("watches are interrupted, and go on trying; that of %s: %s", key or "/", one_line(error))

    def watches_resumed(self, key: str) -> None:
        """An outage of the watches is over."""
        logger.info("watches go on again, that of %s the first", key or "/")

    def watch_resynchronized(self, key: str, index: int) -> None:
        """A watch goes on behind a gap."""
        logger.info("watch of %s lost events up to index %d, and goes on from there", key or "/", index)
