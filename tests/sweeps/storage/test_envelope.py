"""What travels through Ray opens under its own key alone, and shows nothing of its content, not even its length."""

import base64
import json

import pytest

from sweeps.storage.envelope import BLOCK_BYTES, Envelope

DOCUMENT = {"clip_norm": 0.37193, "method": "feature_projected", "names": ["ü", "IMG_48213.jpg"], "nested": {"a": [1, None, True]}}


def test_a_document_comes_back_as_it_was() -> None:
    envelope = Envelope.fresh()
    assert envelope.open(envelope.seal(DOCUMENT)) == DOCUMENT
    assert envelope.open(envelope.seal([])) == []


def test_nothing_of_the_content_shows_and_no_two_are_alike() -> None:
    envelope = Envelope.fresh()
    first, second = envelope.seal(DOCUMENT), envelope.seal(DOCUMENT)
    assert first != second
    raw = base64.urlsafe_b64decode(first)
    assert not [word for word in ("0.37193", "feature", "IMG_48213") if word in first or word.encode() in raw]
    assert repr(envelope.key) not in repr(envelope)


@pytest.mark.parametrize("method", ["dpsgd", "feature_projected", "x" * 200])
def test_lengths_do_not_tell_documents_apart(method: str) -> None:
    envelope = Envelope.fresh()
    assert len(envelope.seal({**DOCUMENT, "method": method})) == len(envelope.seal({}))


def test_a_large_document_takes_whole_blocks() -> None:
    envelope = Envelope.fresh()
    content = json.dumps([f"{number * 0.7191}" for number in range(2000)])
    sealed = base64.urlsafe_b64decode(envelope.seal(content))
    assert (len(sealed) - 12 - 16) % BLOCK_BYTES == 0
    assert envelope.open(envelope.seal(content)) == content


def test_another_key_and_a_changed_letter_are_refused() -> None:
    envelope = Envelope.fresh()
    sealed = envelope.seal(DOCUMENT)
    with pytest.raises(ValueError, match="another key"):
        Envelope.fresh().open(sealed)
    with pytest.raises(ValueError, match="another key, or changed"):
        envelope.open(("B" if sealed[40] != "B" else "C").join((sealed[:40], sealed[41:])))
