"""Delivers webhooks: a few at once, each bounded in time and size, until they are heard.

A message names a task and says how it ended; it never holds what was asked or answered.
"""

import asyncio
import logging
import ssl
import time
from collections import Counter

import httpx
import orjson

from deployments.errors import StoreUnavailable
from deployments.ingress.faults import log_fault
from deployments.ingress.webhooks.guard import Guard, Refused
from deployments.ingress.webhooks.signing import Signer
from deployments.stores.ids import microseconds, utc_of
from deployments.stores.webhooks import WebhookStore
from deployments.types.webhooks import Delivery

POLL_S = 1.0
MAX_AT_ONCE = 8
MAX_OF_TENANT = 4
"""One tenant's slow servers leave room for the others'."""

ATTEMPT_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024
"""Nobody looks at what is answered; so much is read that a server may end well."""

TIDY_S = 600.0
GONE = 410
AGENT = "ragserve-webhooks/1"

log = logging.getLogger("ray.serve")


class Deliverer:
    """Of one event loop; several of them, in several processes, share the deliveries."""

    def __init__(
        self,
        store: WebhookStore,
        signer: Signer,
        guard: Guard,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take what is due, and where it may go; `tls` verifies servers, by default as usual."""
        self._store = store
        self._signer = signer
        self._guard = guard
        self._client = httpx.AsyncClient(
            verify=tls or ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=ATTEMPT_S,
            # No connection is used twice: it is one host's, and two may have the same address.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._running: dict[asyncio.Task[None], str] = {}
        self._something = asyncio.Event()

    def nudge(self) -> None:
        """Look for deliveries now."""
        self._something.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        tidied_at = time.monotonic()
        while True:
            try:
                await self._begin()
                if time.monotonic() - tidied_at > TIDY_S:
                    tidied_at = time.monotonic()
                    await asyncio.to_thread(self._store.tidy)
            except StoreUnavailable:
                pass  # asked again soon
            try:
                async with asyncio.timeout(POLL_S):
                    await self._something.wait()
            except TimeoutError:
                pass
            self._something.clear()

    async def close(self) -> None:
        """Stop what is under way; another deliverer, or the next one, makes it again."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._client.aclose()

    async def _begin(self) -> None:
        room = MAX_AT_ONCE - len(self._running)
        if room <= 0:
            return
        if not await asyncio.to_thread(self._store.has_due):
            return  # a claim would hold up other writers for nothing
        under_way = Counter(self._running.values())
        due = await asyncio.to_thread(self._store.claim, room, under_way, MAX_OF_TENANT)
        for delivery in due:
            task = asyncio.create_task(self._attempt(delivery))
            self._running[task] = delivery.tenant
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._running[task]
        self.nudge()

    async def _attempt(self, delivery: Delivery) -> None:
        """Make one attempt and write down what came of it; never raises."""
        status, error = await self._outcome(delivery)
        try:
            if status is not None and 200 <= status < 300:
                await asyncio.to_thread(self._store.succeed, delivery, status)
                return
            is_final = status == GONE
            await asyncio.to_thread(self._store.fail, delivery, error, status, is_final=is_final)
        except StoreUnavailable:
            log.warning("delivery %s is made again: what came of it is not known", delivery.id)

    async def _outcome(self, delivery: Delivery) -> tuple[int | None, str]:
        """Return the status that was answered, or None, and what was wrong in one word."""
        try:
            async with asyncio.timeout(ATTEMPT_S):
                status = await self._post(delivery)
        except Refused as refused:
            return None, str(refused)
        except (TimeoutError, httpx.TimeoutException):
            return None, "timeout"
        except httpx.ConnectError as error:
            is_tls = isinstance(_root(error), ssl.SSLError)
            return None, "certificate" if is_tls else "no_connection"
        except (httpx.HTTPError, ValueError):
            return None, "no_answer"
        except Exception as error:  # the others go on, whatever it is
            log_fault(error, delivery.id)
            return None, "internal"
        return status, f"http_{status}"

    async def _post(self, delivery: Delivery) -> int:
        goal = await self._guard.destination(delivery.url)
        body = message_of(delivery)
        signed = self._signer.headers(delivery.tenant, delivery.id, int(time.time()), body)
        fixed = {
            "host": goal.host_header,
            "content-type": "application/json",
            "user-agent": AGENT,
            "accept-encoding": "identity",
        }
        extensions = {"sni_hostname": goal.host}
        request = self._client.build_request(
            "POST", goal.url, content=body, headers={**fixed, **signed}, extensions=extensions
        )
        response = await self._client.send(request, stream=True)
        try:
            num_bytes = 0
            async for piece in response.aiter_raw():
                num_bytes += len(piece)
                if num_bytes >= MAX_ANSWER_BYTES:
                    break
        finally:
            await response.aclose()
        return response.status_code


def message_of(delivery: Delivery) -> bytes:
    """Return the body of a delivery: the same in every attempt."""
    time_of_end = utc_of(microseconds(delivery.created_at))
    return orjson.dumps(
        {
            "type": delivery.event,
            "timestamp": time_of_end,
            "data": {
                "task_id": delivery.subject,
                "status": delivery.event.rpartition(".")[2].upper(),
                "completed_at": time_of_end,
            },
        }
    )


def _root(error: BaseException) -> BaseException:
    """Return the error at the beginning of a chain."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
