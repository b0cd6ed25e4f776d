"""`make schema`: the policy's schema, as the template's AppConfig validator holds it.

`python -m local.schema` writes it where it stands; a test says when that is due.
"""

from bouncer.policy.file import validator_schema
from bouncer_console.policy import laid_out
from local import blocks


def main() -> None:
    blocks.write("Content: |-", laid_out(validator_schema()))


if __name__ == "__main__":
    main()
