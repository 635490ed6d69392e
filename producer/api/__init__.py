"""The HTTP ingress: what users of the older backend call, on top of the same events as everybody's."""
