"""Asks for a one-time code beside the key, where what is asked can hurt."""

import asyncio
from typing import Literal, Protocol

from starlette.requests import Request

from deployments.errors import SecondFactorRequired
from deployments.ingress.auth import Key
from deployments.stores.second_factors import Enrolment, SecondFactors

HEADER = "x-second-factor"
MAX_CODE_CHARS = 64
Mode = Literal["required", "enrolled"]


class Factors(Protocol):
    """Keeps second factors; what each does, `SecondFactors` says."""

    async def is_enrolled(self, key_id: str) -> bool:
        """Return whether a key has one that counts."""
        ...

    async def enrol(self, key_id: str, name: str) -> Enrolment:
        """Give a key a new one."""
        ...

    async def confirm(self, key_id: str, code: str) -> None:
        """Let a new one count."""
        ...

    async def use(self, key_id: str, code: str) -> None:
        """Take a code."""
        ...

    async def remove(self, key_id: str) -> None:
        """Take one away."""
        ...


class ThreadedFactors:
    """`Factors` over the store, each call on a thread."""

    def __init__(self, store: SecondFactors) -> None:
        self._store = store

    async def is_enrolled(self, key_id: str) -> bool:
        """Return whether a key has one that counts."""
        return await asyncio.to_thread(self._store.is_enrolled, key_id)

    async def enrol(self, key_id: str, name: str) -> Enrolment:
        """Give a key a new one."""
        return await asyncio.to_thread(self._store.enrol, key_id, name)

    async def confirm(self, key_id: str, code: str) -> None:
        """Let a new one count."""
        await asyncio.to_thread(self._store.confirm, key_id, code)

    async def use(self, key_id: str, code: str) -> None:
        """Take a code."""
        await asyncio.to_thread(self._store.use, key_id, code)

    async def remove(self, key_id: str) -> None:
        """Take one away."""
        await asyncio.to_thread(self._store.remove, key_id)


class SecondFactorCheck:
    """Lets a request through, or not."""

    def __init__(self, factors: Factors, mode: Mode) -> None:
        """Take where factors are kept; `enrolled`: keys that have none are let through."""
        self.factors = factors
        self._mode = mode

    async def pass_(self, request: Request) -> None:
        """Use up the code that came with a request; call it last before the work begins.

        Raises:
            SecondFactorRequired: none came, or the key has no second factor.
            SecondFactorInvalid: it is wrong, or was used.
            SecondFactorLocked: too many were wrong.
        """
        key: Key = request.state.key
        code = request.headers.get(HEADER, "")
        if self._mode == "enrolled" and not await self.factors.is_enrolled(key.id):
            return
        if not code:
            raise SecondFactorRequired(
                f"this asks for a one-time code in the header `{HEADER}`; "
                "a key gets its second factor by POST /v1/totp/enroll"
            )
        await self.factors.use(key.id, code[:MAX_CODE_CHARS])
