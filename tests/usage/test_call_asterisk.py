"""Files of Asterisk's cdr-csv. All calls are made up."""

import pytest
from calling import LONDON, MUMBAI_MOBILE, Caller, counts
from usage_harness import Client

from meterscope.usage.v1 import call_record_service_pb2 as pb


def asterisk(
    *,
    src: str = "1001",
    dst: str = MUMBAI_MOBILE,
    context: str = "from-internal",
    channel: str = "PJSIP/1001-00000001",
    other: str = "PJSIP/carrier-00000002",
    ended: str = "ANSWERED",
    tail: str = ',"1759658400.1",""',
) -> str:
    """A row as Asterisk's cdr-csv writes it: texts in quotes, numbers without, no header. Made up."""
    return (
        f'"","{src}","{dst}","{context}","""Bob"" <1001>","{channel}","{other}","Dial","PJSIP/carrier,30",'
        f'"2026-10-05 10:00:00","2026-10-05 10:00:05","2026-10-05 10:01:05",65,60,"{ended}","DOCUMENTATION"{tail}\n'
    )


def test_its_layout_is_told(caller: Caller, customer: str) -> None:
    text = asterisk() + asterisk(
        src=LONDON,
        dst="+442079460000",
        context="from-pstn",
        channel="SIP/in-0001",
        other="",
        tail=',"1759658400.7",""',
    )
    answer = caller.send(text, customer_id=customer)
    assert (counts(answer), answer.layout) == ((2, 0, 0, 0, 0), pb.CALL_RECORD_LAYOUT_ASTERISK)
    by_id = {call.id: call for call in caller.calls(customer)}
    out = by_id["1759658400.1/PJSIP/carrier-00000002"]
    assert (out.caller, out.callee, out.trunk) == ("1001", MUMBAI_MOBILE, "PJSIP/carrier")
    assert (out.duration_seconds.value, out.billable_seconds.value) == ("65", "60")
    assert (out.call_type, out.disposition) == (pb.CALL_TYPE_OUTBOUND, pb.DISPOSITION_ANSWERED)
    inward = by_id["1759658400.7"]
    assert (inward.call_type, inward.trunk) == (pb.CALL_TYPE_INBOUND, "SIP/in")


def test_legs_of_one_channel_are_calls_of_their_own(caller: Caller, customer: str) -> None:
    text = asterisk(other="PJSIP/a-00000002", ended="NO ANSWER") + asterisk(other="PJSIP/b-00000003")
    assert counts(caller.send(text, customer_id=customer)) == (2, 0, 0, 0, 0)
    assert counts(caller.send(text, customer_id=customer)) == (0, 2, 0, 0, 0)


def test_newer_columns_give_the_sequence(caller: Caller, customer: str) -> None:
    text = "".join(asterisk(tail=f',"1759658400.1","","","1759658400.1",{number}') for number in (7, 8))
    assert counts(caller.send(text, customer_id=customer)) == (2, 0, 0, 0, 0)
    assert {call.id for call in caller.calls(customer)} == {"1759658400.1/7", "1759658400.1/8"}


@pytest.mark.parametrize("tail", ["", ',"sales"'])
def test_a_missing_uniqueid_is_made_up_for(caller: Caller, customer: str, tail: str) -> None:
    text = asterisk(tail=tail) * 2
    assert counts(caller.send(text, customer_id=customer)) == (2, 0, 0, 0, 0)
    assert counts(caller.send(text, customer_id=customer)) == (0, 2, 0, 0, 0)


def test_its_dispositions(caller: Caller, customer: str) -> None:
    words = ["ANSWERED", "NO ANSWER", "BUSY", "FAILED", "CONGESTION"]
    rows = [asterisk(ended=word, tail=f',"1759658400.{index}",""') for index, word in enumerate(words)]
    rows.append(asterisk(ended="ODD", tail=',"1759658400.9",""'))
    answer = caller.send("".join(rows), customer_id=customer)
    assert counts(answer) == (5, 0, 0, 0, 1)
    problem = answer.problems[0]
    assert (problem.line, problem.column, problem.reason) == (6, "disposition", "BAD_DISPOSITION")
    found = {call.disposition for call in caller.calls(customer)}
    assert found == {
        pb.DISPOSITION_ANSWERED,
        pb.DISPOSITION_NO_ANSWER,
        pb.DISPOSITION_BUSY,
        pb.DISPOSITION_FAILED,
        pb.DISPOSITION_CONGESTION,
    }


def test_its_account_code_names_the_customer(caller: Caller, client: Client) -> None:
    customer = client.put_customer(keys=["acct-7"])
    assert caller.send(asterisk().replace('""', '"acct-7"', 1)).accepted == 1
    assert len(caller.calls(customer)) == 1
