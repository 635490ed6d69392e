"""What is wrong with data from outside, in words that repeat none of it."""

from pydantic import ValidationError


def problems_of(error: ValidationError) -> str:
    """One clause for each value that is wrong; none repeats the value, since image URLs may be signed."""
    details = error.errors(include_input=False, include_context=False, include_url=False)
    return "; ".join(_clause(".".join(map(str, detail["loc"])), detail["msg"]) for detail in details)


def _clause(subject: str, message: str) -> str:
    ours = message.removeprefix("Value error, ")
    if not subject and ours != message:
        return ours  # about several values, which it names itself
    predicate = ours.removeprefix("Input ")
    return f"{subject or 'it'} {predicate[0].lower()}{predicate[1:]}"
