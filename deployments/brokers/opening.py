"""Which broker carries the news, by what a host says."""

from urllib.parse import urlsplit

from ray.serve.schema import TaskProcessorConfig

from deployments.brokers.base import QUEUE, Broker
from deployments.brokers.table import TableBroker
from deployments.config import Settings
from deployments.errors import RagError
from deployments.stores.pepper import installation_of

CELERY = {"amqp", "amqps", "redis", "rediss", "unix", "redis+socket"}

CONSUMING = TaskProcessorConfig(
    queue_name=QUEUE,
    adapter="deployments.brokers.opening.open_broker",
    adapter_config=None,  # each host's settings say where: what is here is shown by Serve
)


def open_broker(config: TaskProcessorConfig) -> Broker:
    """Return the broker of this host's settings; nothing connects yet.

    Raises:
        RagError: no broker has such an address, or the extra `broker` is not installed.
    """
    settings = Settings()
    if not settings.broker_url:
        return TableBroker(config)
    scheme = urlsplit(settings.broker_url).scheme
    if scheme not in CELERY:
        raise RagError(f"RAGSERVE_BROKER_URL begins with none of {', '.join(sorted(CELERY))}")
    try:
        from deployments.brokers.celery_broker import CeleryBroker  # only where it is used
    except ImportError as error:
        raise RagError("a broker needs the extra `broker`: pip install ragserve[broker]") from error
    queue = f"{config.queue_name}.{installation_of(settings.state_path)}"
    return CeleryBroker(queue, settings.broker_url)


def open_publisher() -> Broker:
    """Return the broker as one who only publishes has it; raises as `open_broker`."""
    broker = open_broker(CONSUMING)
    broker.initialize()
    return broker
