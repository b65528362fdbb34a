import pytest

from services.kit.errors import InvalidArgument
from services.kit.ids import new_id
from services.kit.paging import decode_token, encode_token, page_size


def test_page_sizes_have_a_default_and_a_bound() -> None:
    assert [page_size(size) for size in (0, 7, 1_000, 5_000)] == [100, 7, 1_000, 1_000]


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="page_size"):
        page_size(-1)


def test_a_token_gives_its_key_back() -> None:
    token = encode_token(["2026-01-01T00:00:00Z", "é"], {"type": "x"})
    assert decode_token(token, {"type": "x"}) == ["2026-01-01T00:00:00Z", "é"]
    assert decode_token("", {"type": "x"}) is None


@pytest.mark.parametrize("token", ["!", "AAAA", "W10", "WzFd", "x" * 5000])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        decode_token(token, {})


def test_a_key_that_the_database_cannot_look_for_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        decode_token(encode_token(["cus_\0"], {}), {})


def test_a_token_belongs_to_its_filters() -> None:
    with pytest.raises(InvalidArgument, match="other filters"):
        decode_token(encode_token(["k"], {"type": "x"}), {"type": "y"})


def test_later_ids_sort_behind_earlier_ones() -> None:
    ids = [new_id("cus") for _ in range(1_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert all(len(made) == len("cus_") + 32 for made in ids)
