"""What the commands of the producer read from the environment: each command its own class, nothing it does not use."""

from schemas.environment import AmqpSettings, TempDirSettings


class PublishSettings(AmqpSettings, TempDirSettings):
    """What `publish` reads."""
