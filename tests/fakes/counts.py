"""The part of DynamoDB that DynamoBudget uses, in memory, for hundreds of examples."""

from typing import Any


class Counts:
    """ADD and REMOVE of numbers, without any condition."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}

    def update_item(self, **request: Any) -> dict[str, Any]:
        its = self.items.setdefault(request["Key"]["pk"]["S"], {})
        adds, _, removes = request["UpdateExpression"].partition(" REMOVE ")
        told = int(request["ExpressionAttributeValues"][":told"]["N"])
        for each in adds.removeprefix("ADD ").partition(" SET ")[0].split(", "):
            name = each.split()[0]
            its[name] = {"N": str(int(its.get(name, {"N": "0"})["N"]) + told)}
        for name in removes.split(", "):
            its.pop(name, None)
        return {"Attributes": its}
