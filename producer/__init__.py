"""For upstream generators: publishing images, and the command line that operators use by hand."""

from producer.publisher import Publisher, PublishError
from schemas.events import ImageGenerated

__all__ = ["ImageGenerated", "PublishError", "Publisher"]
