"""A stack's name that AWS would refuse later is refused before there is anything of the stack."""

from contextlib import suppress

import pytest

from local import deployment
from local.bundle import CommandError
from tests.end_to_end.stack import Stack

NAME = "our-amazon-school"  # which names are taken: tests/template/test_stack_name.py


def test_a_name_that_aws_would_not_take_is_refused_before_anything_is_made(stack: Stack) -> None:
    port = stack.home.state().ports["emulator"]
    with pytest.raises(CommandError, match="the stack's name must have at most 32 characters"):
        deployment.deploy(NAME, port, {"DatabaseSecretArn": "arn:aws:secretsmanager:us-east-1:000000000000:secret:x"})
    cloudformation = stack.client("cloudformation")
    made = [
        event["LogicalResourceId"]
        for event in cloudformation.describe_stack_events(StackName=NAME)["StackEvents"]
        if event["ResourceStatus"] == "CREATE_COMPLETE"
    ]
    assert made == []
    with suppress(cloudformation.exceptions.ClientError):
        cloudformation.delete_stack(StackName=NAME)
