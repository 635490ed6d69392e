"""What is wrong with data from outside, in words that repeat none of it."""

from pydantic import ValidationError


def problems_of(error: ValidationError) -> str:
    """One clause for each value that is wrong; none repeats the value, since image URLs may be signed."""
    details = error.errors(include_input=False, include_context=False, include_url=False)
    return "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'it'} {_predicate(detail['msg'])}" for detail in details)


def _predicate(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message[0].lower() + message[1:]
