"""How workers are told that there are tasks: by nobody, by RabbitMQ, or by Redis."""
