"""Local stand-ins for production: private RabbitMQ and PostgreSQL, and a server that speaks the OSS protocol."""
