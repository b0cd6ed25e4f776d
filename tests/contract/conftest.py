"""AWS inside the test process, for the adapters beside the fakes."""

from tests.integration.conftest import _models_read_once, aws, dynamodb, queue, s3, sqs

__all__ = ["_models_read_once", "aws", "dynamodb", "queue", "s3", "sqs"]
