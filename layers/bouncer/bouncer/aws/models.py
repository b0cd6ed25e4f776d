"""botocore's descriptions of the services, read quickly: most of a client is reading them.

botocore looks for every one of its 400 services, in 2,600 questions to the file system, and reads
JSON in Python, into ordered dicts. Here it looks for those that we call, and msgspec reads.
"""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from botocore.loaders import JSONFileLoader, Loader

SERVICES = ("appconfigdata", "dynamodb", "s3", "ses", "sqs")
_UNPACKED: dict[str, Callable[[bytes], bytes]] = {".json": bytes, ".json.gz": gzip.decompress}


class Models(Loader):
    """botocore's loader, for a session's component `data_loader`."""

    def __init__(self) -> None:
        super().__init__(file_loader=_Json())

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002  (botocore's)
        return list(SERVICES)


class _Json(JSONFileLoader):
    def load_file(self, file_path: str) -> Any:
        """What a file holds, its ending left out; None where there is none."""
        for ending, unpacked in _UNPACKED.items():
            file = Path(file_path + ending)
            if file.is_file():
                return msgspec.json.decode(unpacked(file.read_bytes()))
        return None
