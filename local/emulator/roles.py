"""What a service may do in the name of the role that it was given."""

from ministack import app
from ministack.core import iam_evaluator
from ministack.services import iam


def role_may(role_arn: str, action: str, resource_arn: str) -> bool:
    """Whether a role's policies allow a call that a service makes in its name. Always true unless IAM is enforced."""
    if not app.AUTH:
        return True
    account, name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    context = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{account}:assumed-role/{name}/service",
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource_arn,
        region=resource_arn.split(":")[3],
    )
    boundary = iam_evaluator._permissions_boundary(iam._roles, name, account)
    policies = iam_evaluator._gather_role_policies(name, account)
    return bool(iam_evaluator.evaluate(context, policies, *boundary).decision == "Allow")
