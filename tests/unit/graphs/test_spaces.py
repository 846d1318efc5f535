import pytest

from deployments.errors import CollectionNotFound, Conflict, InvalidRequest
from deployments.types import VectorSpace
from graphs import spaces as module
from graphs.spaces import Spaces

A, B = VectorSpace("a", 1), VectorSpace("b", 2)


class Asked:
    """Answers with the space of the moment, and counts."""

    def __init__(self, *answers: VectorSpace | None) -> None:
        self.answers = list(answers)
        self.names: list[str] = []

    async def __call__(self, collection: str) -> VectorSpace:
        self.names.append(collection)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise CollectionNotFound("gone")
        return answer


class Work:
    """Fits one space only."""

    def __init__(self, fits: VectorSpace | None, error: type[Exception] = Conflict) -> None:
        self.fits, self.error = fits, error
        self.seen: list[VectorSpace] = []

    async def __call__(self, space: VectorSpace) -> str:
        self.seen.append(space)
        if space != self.fits:
            raise self.error("does not fit")
        return "done"


async def test_space_is_asked_for_once() -> None:
    spaces, ask = Spaces(), Asked(A)
    for _ in range(3):
        assert await spaces.of("c", ask) == A
        assert await spaces.within("c", ask, Work(A)) == "done"
    assert ask.names == ["c"]


@pytest.mark.parametrize("error", [Conflict, InvalidRequest])
async def test_work_is_done_again_in_the_new_space(error: type[Exception]) -> None:
    spaces, ask, work = Spaces(), Asked(A, B), Work(B, error)
    assert await spaces.within("c", ask, work) == "done"
    assert work.seen == [A, B]
    assert await spaces.of("c", ask) == B
    assert len(ask.names) == 2


async def test_work_that_does_not_fit_the_same_space_is_not_repeated() -> None:
    spaces, ask, work = Spaces(), Asked(A), Work(B)
    with pytest.raises(Conflict):
        await spaces.within("c", ask, work)
    assert work.seen == [A]


async def test_missing_collection_is_not_remembered() -> None:
    spaces, ask = Spaces(), Asked(None, A)
    with pytest.raises(CollectionNotFound):
        await spaces.of("c", ask)
    assert await spaces.of("c", ask) == A
    with pytest.raises(CollectionNotFound):
        await spaces.within("c", ask, Work(None, CollectionNotFound))
    await spaces.of("c", ask)
    assert len(ask.names) == 3


async def test_least_recently_used_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    spaces, ask = Spaces(), Asked(A)
    for name in ("a", "b", "a", "c", "a", "b"):
        await spaces.of(name, ask)
    assert ask.names == ["a", "b", "c", "b"]
