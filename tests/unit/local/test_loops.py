"""Loops are written out as CloudFormation's own transform does it."""

from typing import Any

import pytest

from local.loops import expand_loops


def expanded(**resources: Any) -> dict[str, Any]:
    transform = ["AWS::LanguageExtensions", "AWS::Serverless-2016-10-31"]
    template = expand_loops({"Transform": transform, "Resources": resources})
    assert template["Transform"] == ["AWS::Serverless-2016-10-31"]
    result: dict[str, Any] = template["Resources"]
    return result


def loop(body: Any) -> list[Any]:
    return ["Job", ["One", "Two"], {"${Job}Queue": body}]


def test_each_item_makes_a_resource() -> None:
    made = expanded(**{"Topic": {"Type": "T"}, "Fn::ForEach::Queues": loop({"Type": "Q"})})
    assert made == {"Topic": {"Type": "T"}, "OneQueue": {"Type": "Q"}, "TwoQueue": {"Type": "Q"}}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"Ref": "Job"}, "One"),
        ({"Ref": "Stack"}, {"Ref": "Stack"}),
        ({"Fn::Sub": "${Stack}-${Job}"}, {"Fn::Sub": "${Stack}-One"}),
        ({"Fn::Sub": ["${Job}-${X}", {"X": {"Ref": "Job"}}]}, {"Fn::Sub": ["One-${X}", {"X": "One"}]}),
        ({"Ref": {"Fn::Sub": "${Job}Role"}}, {"Ref": "OneRole"}),
        ({"Fn::GetAtt": [{"Fn::Sub": "${Job}Role"}, "Arn"]}, {"Fn::GetAtt": ["OneRole", "Arn"]}),
        ({"Fn::FindInMap": ["Names", {"Ref": "Job"}, "Job"]}, {"Fn::FindInMap": ["Names", "One", "Job"]}),
        ("${Job} in a plain string", "${Job} in a plain string"),  # as on AWS: only Fn::Sub substitutes
        (["list", {"Ref": "Job"}], ["list", "One"]),
    ],
)
def test_identifier_is_filled_in_where_cloudformation_does_it(written: Any, meant: Any) -> None:
    assert expanded(**{"Fn::ForEach::Queues": loop({"Value": written})})["OneQueue"] == {"Value": meant}


def test_loop_cannot_replace_a_resource() -> None:
    with pytest.raises(ValueError, match="TwoQueue is declared twice"):
        expanded(**{"TwoQueue": {}, "Fn::ForEach::Queues": loop({})})
