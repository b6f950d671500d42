"""The scoreboard's short way for acknowledgements, beside the one that looks at each segment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.netstack.tcp.scoreboard import Scoreboard
from minivpn_trio.netstack.tcp.sent_segment import SentSegment

MSS = 40
SHORT = 10
#: More than any position of a test.
EVERYTHING = 1 << 40

operations = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 6), st.integers(1, MSS)),
        st.tuples(st.just("acknowledge"), st.floats(0, 1), st.booleans()),
        st.tuples(st.just("sack"), st.floats(0, 1), st.floats(0, 1)),
        st.tuples(st.just("detect"), st.floats(0, 1), st.integers(0, 3)),
        st.tuples(st.just("resend"), st.integers(1, 4), st.booleans()),
        st.tuples(
            st.sampled_from(["lose_first", "lose_all", "lose_larger", "forget", "find_all", "resegment"]),
            st.just(0),
            st.just(0),
        ),
    ),
    max_size=60,
)


def picture(board: Scoreboard) -> object:
    """All that others see of a scoreboard."""

    def shown(segment: SentSegment | None) -> object:
        return segment and (
            segment.start,
            segment.end,
            segment.payload,
            segment.sent_at,
            segment.transmissions,
            segment.sacked,
            segment.lost,
            segment.resent,
        )

    return (
        [shown(segment) for segment in board],
        board.pipe,
        board.sacked,
        board.sacked_bytes,
        shown(board.sample),
        shown(board.resent),
        board.late,
        board.highest,
        shown(board.next_lost()),
        shown(board.last_pending),
    )


def play(todo: list[tuple[str, float, float]], look_at_each: bool) -> list[object]:
    """What the scoreboard looked like after each operation."""
    board, una, nxt, now, pictures = Scoreboard(), 0, 0, 0.0, []
    for name, first, second in todo:
        now += 1.0
        if look_at_each:
            board._marked = EVERYTHING
        if name == "send":
            segments = []
            for index in range(int(first)):
                size = MSS if index < first - 1 else int(second)
                segments.append(SentSegment(nxt, nxt + size, bytes(i % 251 for i in range(nxt, nxt + size)), now))
                nxt += size
            board.extend(segments, sum(segment.end - segment.start for segment in segments))
        elif name == "acknowledge" and nxt > una:
            position = una + max(1, int(first * (nxt - una)))
            if second:
                # To a segment's end, as is usual.
                position = next(segment.end for segment in board if segment.end >= position)
            board.acknowledge(position)
            una = position
        elif name == "sack" and nxt > una:
            left = una + int(first * (nxt - una))
            board.sack(left, left + int(second * (nxt - left)))
        elif name == "detect" and nxt > una:
            board.detect_losses(first * now, nxt, now - second)
        elif name == "resend":
            for _ in range(int(first)):
                segment = board.next_lost() or (board.last_pending if second else None)
                if segment is not None:
                    board.resend(segment, now)
        elif name == "lose_first":
            board.lose_first()
        elif name in ("lose_all", "forget"):
            board.lose_all(forget_sacks=name == "forget")
        elif name == "lose_larger":
            board.lose_larger(MSS // 2)
        elif name == "find_all":
            board.find_all()
        elif name == "resegment":
            board.resegment(MSS // 2)
        pictures.append(picture(board))
    return pictures


@given(operations)
def test_the_short_way_comes_to_the_same(todo: list[tuple[str, float, float]]) -> None:
    assert play(todo, look_at_each=False) == play(todo, look_at_each=True)


def test_the_short_way_is_taken_and_left() -> None:
    board = Scoreboard()
    board.extend([SentSegment(at, at + SHORT, bytes(SHORT), 1.0) for at in range(0, 100, SHORT)], 100)
    looked_at: list[int] = []

    class Watched(SentSegment):
        """Tells when its marks are looked at."""

        @property
        def sacked(self) -> bool:
            looked_at.append(self.start)
            return False

        @sacked.setter
        def sacked(self, value: bool) -> None:
            pass

    board.extend([Watched(at, at + SHORT, bytes(SHORT), 2.0) for at in range(100, 200, SHORT)], 100)
    board.acknowledge(120)
    assert (board.pipe, looked_at) == (80, [])
    board.lose_first()
    looked_at.clear()
    board.acknowledge(130)
    assert looked_at == [120]
    looked_at.clear()
    board.acknowledge(140)
    assert (board.pipe, looked_at) == (60, [])
