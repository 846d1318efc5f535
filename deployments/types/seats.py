"""Where processes that compute together stand, and meet."""

from collections.abc import Sequence
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one rank stands in its gang.

    `num_local` ranks share its host, of which it is number `local_rank`; `device` is torch's name
    of the device it computes on.
    """

    rank: int
    size: int
    local_rank: int
    num_local: int
    address: str
    port: int
    device: str


def meeting_address(hosts: Sequence[tuple[str, str]]) -> str:
    """Return the first rank's address of (node, address) by rank; loopback on one node."""
    return LOOPBACK if len({node for node, _ in hosts}) == 1 else hosts[0][1]


def seats_of(
    hosts: Sequence[tuple[str, str]], address: str, port: int, *, is_on_gpu: bool
) -> list[Seat]:
    """Return each rank's seat; Ray shows a rank its own GPU and no other."""
    nodes = [node for node, _ in hosts]
    return [
        Seat(
            rank=rank,
            size=len(nodes),
            local_rank=nodes[:rank].count(node),
            num_local=nodes.count(node),
            address=address,
            port=port,
            device="cuda:0" if is_on_gpu else "cpu",
        )
        for rank, node in enumerate(nodes)
    ]
