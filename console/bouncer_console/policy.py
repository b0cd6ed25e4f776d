"""`bouncer policy`: check a policy, print its schema, bring it to AppConfig."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import ClientError

from bouncer.policy.conditions import PolicyError
from bouncer.policy.decide import Policy
from bouncer.policy.file import json_schema, validator_schema
from bouncer.policy.load import load, load_file
from bouncer.policy.review import SampleText, review, sample_texts, unreachable
from bouncer_console.checkout import DEFAULT_POLICY
from bouncer_console.deployment import (
    DEFAULT_STACK,
    Deployment,
    DeploymentError,
    RegionOption,
    StackOption,
)
from bouncer_console.output import Json, ask, fail, note, plain_errors, print_json, report, say

app = typer.Typer(help="The policy: check it, and bring it to a stack.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="The policy, TOML or JSON.")]


@app.command()
def check(
    file: FileArgument = DEFAULT_POLICY,
    stack: Annotated[
        str | None, typer.Option(help="Also ask whether this stack may use its bounce senders.")
    ] = None,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong in a policy, in which line, and how to mend it.

    The exit status is 1 if anything is.
    """
    problems: list[str] = []
    hints: list[str] = []
    texts: list[SampleText] = []
    one_answer = False
    with plain_errors(DeploymentError):
        try:
            policy = load_file(file)
            if stack:
                found = senders_not_allowed(policy, Deployment.find(stack, region))
                problems = [f"{file}: {each}" for each in found]
            hints = [f"{file}: {each}" for each in (*review(policy), *unreachable(policy))]
            texts = sample_texts(policy)
            one_answer = policy.file.one_answer is not None
        except PolicyError as error:
            problems = str(error).splitlines()
    if as_json:
        shown = {each.place: each.text for each in texts}
        print_json(
            {
                "ok": not problems,
                "errors": problems,
                "warnings": hints,
                "one_answer": one_answer,
                "texts": shown,
            }
        )
    else:
        for each in texts:
            spelt = " (in letters that a bounce can hold)" if each.transliterated else ""
            say(f"{each.place}, as an example's sender reads it{spelt}:")
            say("    " + "\n    ".join(each.text.splitlines()))
        if one_answer:
            say("one_answer: every refusal reads alike, whatever the mailbox's state")
        for hint in hints:
            say(f"warning: {hint}", "yellow")
        if not problems:
            say(f"{file} is a good policy.", "green")
    if problems:
        if as_json:
            raise typer.Exit(1)
        fail("\n".join(problems))


def senders_not_allowed(policy: Policy, deployment: Deployment) -> list[str]:
    """The policy's bounce senders that the stack's permission leaves out."""
    parameters = deployment.parameters
    others = parameters.get("OtherBounceSenders", "").split(",")
    allowed = {each.strip() for each in (parameters.get("BounceSender", ""), *others)}
    return [
        f"bounce_sender {each!r}: {deployment.stack} may not use it: deploy it with "
        "OtherBounceSenders (and OtherBounceIdentityArns, its verified identity), or take "
        f"{parameters.get('BounceSender')}"
        for each in sorted(policy.bounce_senders - allowed)
    ]


@app.command()
def schema(
    validator: Annotated[
        bool, typer.Option("--validator", help="As AppConfig's validator takes it.")
    ] = False,
) -> None:
    """Print the file format as a JSON Schema, for editors."""
    if validator:
        typer.echo(laid_out(validator_schema()))
    else:
        print_json(json_schema())


def laid_out(value: Any, width: int = 86, indent: int = 0, name: str | None = None) -> str:
    """JSON in lines of that width: a value that fits stays on one line, others go a level deeper.

    The template holds AppConfig's validator so; 86 is what its indentation leaves of a line.
    """
    start = "" if name is None else f"{json.dumps(name)}: "
    flat = start + json.dumps(value)
    if indent + len(flat) < width or not value or not isinstance(value, dict | list):
        return flat
    items = ((None, each) for each in value) if isinstance(value, list) else value.items()
    deeper = indent + 2
    inner = [" " * deeper + laid_out(each, width, deeper, key) for key, each in items]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return ",\n".join(inner).join((f"{start}{opening}\n", f"\n{' ' * indent}{closing}"))


@app.command()
def push(
    file: FileArgument = DEFAULT_POLICY,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Deploy a policy to a stack with PolicySource=appconfig.

    It is in force within a minute.
    """
    with plain_errors(PolicyError, DeploymentError):
        load_file(file)
        text = file.read_text("utf-8-sig")
        version = pushed(Deployment.find(stack, region), text, str(file))
    text = f"{file} is version {version} of the policy of {stack}."
    report(text, as_json, file=str(file), stack=stack, version=version)


def pushed(deployment: Deployment, text: str, origin: str) -> int:
    """Store a policy in AppConfig and begin to deploy it.

    Args:
        origin: what errors call it.

    Returns:
        Its version.

    Raises:
        PolicyError: it is wrong, or another deployment is under way.
        DeploymentError, ClientError
    """
    policy = load(text, origin)
    content = text if text.lstrip().startswith("{") else json.dumps(tomllib.loads(text))
    if problems := senders_not_allowed(policy, deployment):
        raise PolicyError("\n".join(f"{origin}: {each}" for each in problems))
    appconfig = deployment.client("appconfig")
    application = deployment.output("PolicyApplication")
    profile = deployment.output("PolicyProfile")
    version: int = appconfig.create_hosted_configuration_version(
        ApplicationId=application,
        ConfigurationProfileId=profile,
        Content=content.encode(),
        ContentType="application/json",
    )["VersionNumber"]
    note(f"version {version} is stored; deploying it")
    try:
        appconfig.start_deployment(
            ApplicationId=application,
            EnvironmentId=deployment.output("PolicyEnvironment"),
            ConfigurationProfileId=profile,
            ConfigurationVersion=str(version),
            DeploymentStrategyId=deployment.output("PolicyStrategy"),
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConflictException":
            raise
        raise PolicyError(
            f"version {version} is stored, but another deployment is under way; "
            "push again in a minute"
        ) from error
    return version


@app.command()
def purge(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    stack: StackOption = DEFAULT_STACK,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Delete every version of the policy that AppConfig stores.

    AppConfig keeps a profile that has versions: do this before `sam delete`, and before a
    deployment that switches back to PolicySource=file. Keep your policy's file.
    """
    with plain_errors(DeploymentError):
        deployment = Deployment.find(stack, region)
        appconfig = deployment.client("appconfig")
        names = {
            "ApplicationId": deployment.output("PolicyApplication"),
            "ConfigurationProfileId": deployment.output("PolicyProfile"),
        }
        pages = appconfig.get_paginator("list_hosted_configuration_versions").paginate(**names)
        versions = sorted(each["VersionNumber"] for page in pages for each in page["Items"])
        question = f"Delete {len(versions)} versions of the policy of {stack}?"
        if versions:
            ask(question, yes=yes)
        for version in versions:
            appconfig.delete_hosted_configuration_version(VersionNumber=version, **names)
    text = f"{len(versions)} versions of the policy of {stack} are deleted."
    report(text, as_json, stack=stack, deleted=versions)
