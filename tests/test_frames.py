"""The frames between master and agent: whatever is encoded comes out again, however it is cut on the way."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.wire import frames

# Text as paths and arguments are: with lone surrogates for bytes that are no UTF-8 (PEP 383).
texts = st.text(st.characters(codec=None, exclude_characters='\0'))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)
)
headers = st.dictionaries(texts, values, max_size=4)


@given(st.lists(st.tuples(headers, st.binary(max_size=200)), max_size=5), st.data())
def test_frames_survive_any_cut(sent: list[tuple[dict[str, object], bytes]], data: st.DataObject) -> None:
    stream = b''.join(frames.encode(header, body) for header, body in sent)
    decoder = frames.Decoder()
    received = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += decoder.feed(stream[:size])
        stream = stream[size:]
    assert received == sent


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=8), st.data())
def test_frames_that_may_be_cut_come_in_pieces(sent: list[tuple[bool, bytes]], data: st.DataObject) -> None:
    """In order with all others, which come whole; nothing that came waits for the rest of its frame."""
    numbered = [({'id': number, 'cut': may_be_cut}, body) for number, (may_be_cut, body) in enumerate(sent)]
    stream = b''.join(frames.encode(header, body) for header, body in numbered)
    decoder = frames.Decoder(may_be_cut=lambda header: bool(header['cut']))
    received: list[tuple[dict[str, object], bytes]] = []
    fed = 0
    while fed < len(stream):
        size = data.draw(st.integers(1, len(stream) - fed))
        received += decoder.feed(stream[fed : fed + size])
        fed += size
        assert sum(len(body) for _, body in received) == _come(numbered, fed)
    assert [next(group)[0] for _, group in groupby(received, lambda frame: frame[0]['id'])] == [h for h, _ in numbered]
    for header, body in numbered:
        came = [piece for of, piece in received if of == header]
        assert b''.join(came) == body
        assert header['cut'] or len(came) == 1


def _come(sent: list[tuple[dict[str, object], bytes]], fed: int) -> int:
    """Bytes of bodies that are told after so many bytes of the stream."""
    told = 0
    for header, body in sent:
        begin = len(frames.begin(header, len(body)))
        if fed < begin + len(body):
            return told + (max(0, fed - begin) if header['cut'] else 0)
        told += len(body)
        fed -= begin + len(body)
    return told


def test_a_half_frame_is_no_frame() -> None:
    decoder = frames.Decoder()
    whole = frames.encode({'id': 1}, b'body')
    assert decoder.feed(whole[:-1]) == []
    assert decoder.feed(whole[-1:]) == [({'id': 1}, b'body')]


@pytest.mark.parametrize(
    'noise', [b'Welcome to node1!\n', b'\xff' * 8, frames.PREFIX.pack(2, 0) + b'[]', frames.PREFIX.pack(3, 0) + b'{x}']
)
def test_noise_is_an_error_and_no_frame(noise: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.Decoder().feed(noise)
